"""The page of a regression's intervals. Widths are rounded up, shares of targets down."""

import math

from smoothcert.report.tables import Page, Table
from smoothcert.results.figures import percent, up
from smoothcert.results.regression import CertifiedIntervals, IntervalRuns, Widths

_SAYS = ("For each input, the percentile of the outputs under noise stays in its interval, wherever within the radius "
         "the input is moved: with probability 1 - alpha for all outputs together, at one radius chosen beforehand. "
         "Widths are rounded up.")
_INSIDE = "Targets inside are observed, not proved: a target may lie outside because the function is wrong."
_WIDER = "* read from the next kept ranks further out: at most about sigma / 32 of radius wider than n allows."


def intervals_page(runs: IntervalRuns, style: str) -> Page:
    """Return one table for each run: a row for each output and radius."""
    tables = [_table(run, run.at(runs.radii)) for run in runs.results]
    some = [one for run in runs.results for one in run.at(runs.radii)]
    legend = [_SAYS, *[_INSIDE] * any(one.inside is not None for one in some),
              *[_WIDER] * any(not one.exact for one in some)]
    return Page(tables, legend="\n".join(legend))


def _table(run: CertifiedIntervals, found: list[Widths]) -> Table:
    several, has_targets = run.outputs > 1, found[0].inside is not None
    outputs = f", {run.outputs} outputs" if several else ""
    above = [f"{run.name}: {run.images} inputs, sigma {run.sigma:g}, percentile {run.percentile:g}{outputs}, alpha "
             f"{run.alpha:g}, n {run.n:,}" + ("" if run.complete else "  (UNFINISHED)")]
    heads = [*(["output"] if several else []), "radius", "mean width", "median", "10%", "90%",
             *(["targets inside"] if has_targets else [])]
    rows = [[*([str(one.output)] if several else []), f"{one.radius:g}{'' if one.exact else '*'}",
             *map(round_up, (one.mean, one.median, one.low, one.high)),
             *([] if one.inside is None else [percent(one.inside)])] for one in found]
    return Table.of(heads, rows, above, [f"note: {note}" for note in run.notes])


def round_up(width: float) -> str:
    """Return a width with four significant digits or all before the point, rounded up.

    >>> round_up(0.123421), round_up(12.0), round_up(98761.2), round_up(math.inf), round_up(0.0)
    ('0.1235', '12.00', '98762', 'inf', '0')
    """
    if not width or not math.isfinite(width):
        return f"{width:g}"
    return up(width, max(0, 3 - math.floor(math.log10(width))))
