"""The page of runs of PREDICT: accuracy and abstentions of the smoothed classifier, rounded down."""

from smoothcert.report.tables import Page, Table
from smoothcert.results.figures import alpha_words, percent, sigma_words
from smoothcert.results.predictions import PredictedRuns

_HEADS = ("run", "images", "sigma", "alpha", "n", "accuracy", "abstained", "this test set, at least",
          "new images, at least")


def predictions_page(runs: PredictedRuns, style: str) -> Page:
    """Return one table of all runs, with a row for each n."""
    rows = [[look.name + ("" if look.complete else " (UNFINISHED)"), str(look.images), sigma_words(look.sigma),
             alpha_words(look.alpha), f"{look.n:,}" if look.n else "?", *map(percent, look.shares(runs.rho).values())]
            for one in runs.results for look in one.looks]
    several = " Each n of a run is judged at alpha by itself." if any(one.earlier for one in runs.results) else ""
    legend = (f"Percent, rounded down; an abstention counts as wrong. Lower bounds of the smoothed classifier's own "
              f"accuracy hold with probability {1 - runs.rho:g}.{several}")
    return Page([Table.of(_HEADS, rows)], runs.warning, runs.notes, legend)
