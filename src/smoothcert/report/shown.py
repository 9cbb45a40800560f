"""Results as every verb prints them: the text, or the plain values, of one store are the same wherever it is shown."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from smoothcert.checks import one_line
from smoothcert.errors import InputError
from smoothcert.report.certified import certificates_page
from smoothcert.report.distributional import robustness_page
from smoothcert.report.multi_label import labels_page
from smoothcert.report.regression import intervals_page
from smoothcert.report.tables import Page, Table, write
from smoothcert.results.attacks import AttackResult, AttackRuns, Outcome
from smoothcert.results.base import Points, Runs, StoreResult
from smoothcert.results.compare import Beside, UnderAttack, Violations
from smoothcert.results.figures import alpha_words, confidence, down, percent, sigma_words
from smoothcert.results.gather import Gathered, put_side_by_side
from smoothcert.results.predictions import PredictedRuns
from smoothcert.results.transfers import Transferred

_PREDICTED = ("run", "images", "sigma", "alpha", "n", "accuracy", "abstained", "this test set, at least",
              "new images, at least")
_GUARANTEE = "This is what the attack found, and no guarantee: a stronger one may find more."


def predictions_page(runs: PredictedRuns, style: str) -> Page:
    """Return one table of all runs, with a row for each n."""
    rows = [[look.name + ("" if look.complete else " (UNFINISHED)"), str(look.images), sigma_words(look.sigma),
             alpha_words(look.alpha), f"{look.n:,}" if look.n else "?", *map(percent, look.shares(runs.rho).values())]
            for one in runs.results for look in one.looks]
    several = " Each n of a run is judged at alpha by itself." if any(one.earlier for one in runs.results) else ""
    legend = (f"Percent, rounded down; an abstention counts as wrong. Lower bounds of the smoothed classifier's own "
              f"accuracy hold with probability {confidence(runs.rho)}.{several}")
    return Page([Table.of(_PREDICTED, rows)], runs.warning, runs.notes, legend)


def attacks_page(runs: AttackRuns, style: str) -> Page:
    """Return a table for each attack store."""
    return Page([_attack_table(one) for one in runs.results])


def _attack_table(one: AttackResult) -> Table:
    options = "".join(f", {name} {value}" for name, value in one.options.items() if value is not None)
    wanted = "" if one.target is None else f", towards class {one.target}"
    unfinished = "" if one.complete else "  (UNFINISHED: the run has attacks left)"
    answered = "answers by mean softmax" if one.alpha is None else f"alpha {one.alpha:g}"
    above = [f"{one.name}: {one.count} images, sigma {one.sigma:g}, {answered}{unfinished}",
             one_line(f"attack {one.attack}{options}{wanted}")]
    is_targeted, in_linf = one.target is not None, one.norm == "linf"
    heads = [one.axis, "m", "T", "n", "images", "accuracy", "changed", *(["reached"] if is_targeted else []),
             "abstained", "mean l2", *(["mean linf"] if in_linf else [])]
    rows = [[*_setting(o), str(o.images), percent(o.accuracy), percent(o.changed),
             *([percent(o.reached or 0.0)] if is_targeted else []), percent(o.abstained), f"{o.l2:.4g}",
             *([f"{o.linf:.4g}"] if in_linf else [])] for o in one.outcomes]
    unit = "multiples of each image's certified radius" if one.axis == "times" else "bounds on the perturbation"
    abstentions = "" if one.alpha is None else " An abstention is wrong, and no change."
    several = " Each n is judged at alpha by itself." if one.has_looks else ""
    below = [*(f"note: {note}" for note in one.remarks),
             f"Percent, rounded down; {one.axis} = {unit}; m 0 = the base classifier attacked.{abstentions}{several}",
             _GUARANTEE]
    return Table.of(heads, rows, above, below)


def _setting(row: Outcome | Beside) -> list[str]:
    m, steps = (str(row.m), str(row.steps)) if row.size else ("-", "-")
    return [f"{row.size:g}", m, steps, str(row.n)]


def under_attack_page(found: UnderAttack) -> Page:
    """Return certified beside empirical accuracy, and a sentence on changed answers inside certified radii."""
    words = violations_text(found.violations)
    if not found.rows:
        return Page([words])
    heads = ["eps", "m", "T", "n", "certified", "empirical", "lost to answers", "to abstention"]
    rows = [[*_setting(row), percent(row.certified), percent(row.empirical), percent(row.lost_answers),
             percent(row.lost_abstentions)] for row in found.rows]
    below = []
    low = [row for row in found.rows if row.empirical < row.certified]
    if quiet := [row for row in low if not row.lost_answers]:
        below.append(f"Empirical below certified at {_places(quiet)}: by abstentions alone; give predict a larger n.")
    if wrong := [row for row in low if row.lost_answers]:
        below.append(f"WARNING: empirical below certified at {_places(wrong)}, with other answers than the certified "
                     f"ones.")
    above = [f"Beside the certificates of {found.name}, same images (lost = certified and right, but then):"]
    return Page([Table.of(heads, rows, above, [*below, words])])


def violations_text(found: Violations) -> str:
    """Return a sentence on attacks inside certified radii."""
    words = (f"Inside certified radii: {found.changed} of {found.pairs} attacked images ({found.images_changed} of "
             f"{found.images} images) changed the answer; at most {found.expected:.3g} expected from alpha")
    if found.changed and found.chance < 0.01:
        return f"{words}.\nWARNING: so many have probability below {found.chance:.2g}: something is wrong."
    return f"{words}."


def _places(rows: Sequence[Beside]) -> str:
    return "; ".join(dict.fromkeys(f"eps {row.size:g} (n {row.n})" for row in rows))


def transfer_page(found: Transferred) -> Page:
    """Return the transferred certificates beside direct sampling, and a sentence on the gain."""
    heads = ["certificates", "passes an image", "ACR", *(f"r = {radius:g}" for radius in found.radii)]
    rows = [[line.name + (" (estimate)" if line.is_estimate else ""), f"{line.passes:,.0f}" if line.passes else "-",
             down(line.acr, 3), *map(percent, line.accuracy)] for line in found.lines]
    above = [f"Beside direct sampling: {found.paired:,} of {found.images:,} images had {found.n:,} copies, which both "
             f"networks judged",
             f"{100 * found.harmful:.3g}% of the copies flipped away from the chosen class, {100 * found.helpful:.3g}% "
             f"towards it (which counts for nothing)"]
    transferred, same, twice = found.lines[1:]
    below = []
    if found.gain is not None:
        below.append(f"ACR by the transfer is {found.gain:.3f} times that of direct sampling of as many copies, and "
                     f"{transferred.acr / twice.acr:.3f} times the estimate at as many passes.")
    if transferred.acr < same.acr:
        below.append("Here the transfer lost: `smoothcert certify` of this network would have proved more. To take the "
                     "better of the two now would be a choice after seeing the counts, which alpha does not cover.")
    below.append("Certified accuracy in percent, rounded down. Passes are beside the original's run; its estimate "
                 "keeps the shares of the votes, and proves nothing.")
    return Page([Table.of(heads, rows, above, below)])


PAGES: dict[str, Callable[[Any, str], Page]] = {
    "certify": certificates_page, "predict": predictions_page, "distributional": robustness_page,
    "attack": attacks_page, "multi-label": labels_page, "regression": intervals_page,
}
"""The page of results of each kind, for a format."""


def render(runs: Sequence[Runs], style: str) -> str:
    """Return the tables of results in one of `tables.FORMATS`, those of each kind below those of the one before.

    Raises:
        UnknownNameError: no such format. InputError: CSV of several kinds.
    """
    if style == "csv" and len(runs) > 1:
        raise InputError("CSV has one kind of run in a table: give runs of certification, of PREDICT, of "
                         "distributional bounds, attacks, labels, or regressions")
    return "\n\n".join(write(partial(PAGES[one.kind], one), one.rows, style) for one in runs)


def render_result(result: StoreResult, points: Points = Points()) -> str:  # noqa: B008
    """Return the text of one result. Raises InputError where it cannot be asked at these points."""
    return render(Gathered([result]).at(points), "text")


def result_json(result: StoreResult, points: Points = Points()) -> dict[str, Any]:  # noqa: B008
    """Return one result as plain values."""
    return put_side_by_side([result], points).to_json()[0]
