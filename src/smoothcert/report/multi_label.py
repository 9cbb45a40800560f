"""The page of multi-label runs. Shares are rounded down."""

from smoothcert.report.tables import Page, Table
from smoothcert.results.figures import confidence, percent
from smoothcert.results.multi_label import CertifiedLabels, LabelRuns

_MOST_LABELS = 10


def labels_page(runs: LabelRuns, style: str) -> Page:
    """Return one table for each run: a row for each radius."""
    legend = (f"Percent, rounded down; all labels: inputs with every label right and certified at the radius; present: "
              f"of the labels that are present, those right and certified. All labels of an input together fail with "
              f"probability alpha at one radius chosen beforehand (Holm). Lower bounds on new inputs hold with "
              f"probability {confidence(runs.rho)} at one radius chosen beforehand.")
    return Page([_table(run, runs) for run in runs.results], legend=legend)


def _table(run: CertifiedLabels, runs: LabelRuns) -> Table:
    labels = run.label.shape[1]
    above = [f"{run.name}: {run.images} inputs, {labels} labels, sigma {run.sigma:g}, alpha {run.alpha:g}, n {run.n:,}"
             + ("" if run.complete else "  (UNFINISHED)")]
    shown = range(labels) if labels <= _MOST_LABELS else range(0)
    rows = []
    for one in run.at(runs.radii, runs.rho):
        cells = [percent(one.exact), percent(one.population), percent(one.mean),
                 "" if one.present is None else percent(one.present), percent(min(one.labels)),
                 *(percent(one.labels[k]) for k in shown)]
        rows.append([f"{one.radius:g}", *(["-"] * len(cells) if run.is_out_of_reach(one.radius) else cells)])
    notes = [*run.notes, *filter(None, [run.reach_note(runs.radii)])]
    heads = ["radius", "all labels", "new inputs, at least", "mean label", "present", "worst label",
             *(f"label {k}" for k in shown)]
    return Table.of(heads, rows, above, [f"note: {note}" for note in notes])
