"""The curves of a page: the arrays that its scripts draw, thinned and never above what was certified; their legends."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.report.tables import Markup, element, embed, join_parts, round_down
from smoothcert.results.attacks import AttackResult, empirical_curve
from smoothcert.results.curves import COLUMNS, corners
from smoothcert.results.gather import PageRun
from smoothcert.results.studies import top_shares, votes_of, wall

LOWER = (("test_set", "this test set, at least"), ("population", "new images, at least"),
         ("all_radii", "this test set, all radii at once"))
"""Lower bounds that the page can show, and their words."""

_FIELDS = ("accuracy", *(name for name, _ in LOWER))

_POINTS = 150_000
"""Points of all runs' curves together."""

_MARKS = ("M12.5 5a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M13 1h8v8h-8z", "M17 0l5 5l-5 5l-5 -5z",
          "M17 .5l5 8.5h-10z",
          "M13 2.5l1.5 -1.5l2.5 2.5l2.5 -2.5l1.5 1.5l-2.5 2.5l2.5 2.5l-1.5 1.5l-2.5 -2.5l-2.5 2.5l-1.5 -1.5l2.5 -2.5z")
"""Circle, square, diamond, triangle and cross, around (17, 5): the marks of attack stores, one after the other."""

_SETTLED = "M11 3.5h12v3h-12z"
"""A short bar around (17, 5): the mark of a radius that a run decided."""


def chart_data(runs: Sequence[PageRun], rho: float) -> Iterator[dict[str, Any]]:
    """Yield for each run the fractions and radii that its curves are drawn from, and histograms of its votes.

    All are cut to six decimals; `votes` is None where the counts cannot tell the top class's share.
    A curve has its whole value at every edge of a fine column (see `results.curves`); with many runs columns are wider.
    A run that stopped when its radii were decided has `points` there, which are all that is drawn of its curve.
    """
    columns = max(30, min(COLUMNS, _POINTS // (2 * len(runs))))
    for run in runs:
        votes = None
        with suppress(StoreError):  # the counts of some runs cannot tell
            shares = top_shares([(run.name, votes_of(run.store), run.result.level)])
            votes = {"edges": shares.edges.tolist(), "observed": round_down(shares.observed[0]),
                     "lower": round_down(shares.lower[0])}
        result, walls = run.result, wall([run.result], columns)
        at = result.at(corners(result, columns), rho)
        points = None if result.decided is None else {"radius": [], **{name: [] for name in _FIELDS}}
        if result.decided:
            settled = result.at(result.decided, rho)
            points = {"radius": list(result.decided), **{name: round_down(getattr(settled, name)) for name in _FIELDS}}
        most = float(walls.wall[0])
        shape = (result.setting.get("data") or {}).get("shape")
        yield {
            "name": run.name, "sigma": None if np.isnan(result.sigma) else result.sigma, "acr": result.acr,
            "dimension": int(np.prod(shape)) if shape else None,
            "radius": round_down(at.radii), **{name: round_down(getattr(at, name)) for name in _FIELDS},
            "points": points,
            "wall": {"share": round_down(walls.share[0]), "radius": round_down(walls.radii[0]),
                     "most": None if np.isnan(most) else most, "at": float(walls.at_wall[0])},
            "votes": votes,
        }


def pack(charts: Iterable[dict[str, Any]], attacks: Sequence[AttackResult]) -> Markup:
    """Return all that the page draws as JSON in little room.

    `levels` are the distinct accuracies with their bounds, and `at` of a run says which of them stands at each of its
    radii. The text is made run by run, since the numbers of many runs take megabytes.
    """
    levels: dict[tuple[float, ...], int] = {}
    runs = []
    for chart in charts:
        points = zip(*(chart.pop(field) for field in _FIELDS), strict=True)
        runs.append(embed({**chart, "at": [levels.setdefault(point, len(levels)) for point in points]}))
    return Markup("".join(['{"runs":[', ",".join(runs), '],"fields":', embed(_FIELDS), ',"levels":',
                           embed(list(levels)), ',"attacks":', embed(attack_points(attacks)),
                           ',"mark":', embed(_SETTLED), "}"]))


def select_drawn(attacks: Sequence[AttackResult]) -> list[AttackResult]:
    """Return the attack stores that have a place beside l2 radii: those over eps, bounded in l2."""
    return [one for one in attacks if one.axis == "eps" and one.norm == "l2"]


def attack_points(attacks: Sequence[AttackResult]) -> list[dict[str, Any]]:
    """Return empirical accuracy at each l2 size of the attacks that are drawn, at their largest m, steps and n."""
    curves = [empirical_curve(attack.store, name=attack.name) for attack in select_drawn(attacks)]
    return [{"name": curve.name, "size": curve.size.tolist(), "accuracy": round_down(curve.accuracy),
             "mark": _MARKS[k % len(_MARKS)]} for k, curve in enumerate(curves)]


def swatch(k: int, has_curve: bool = True) -> Markup:
    """Return the line of the k-th run, or its point where it has no curve."""
    return _small(element("line", x1="0", y1="5", x2="34", y2="5", class_=f"s{k % 7} d{k % 6}") if has_curve else
                  element("path", d=_SETTLED, class_=f"f{k % 7}"))


def points_legend(attacks: Sequence[AttackResult], runs: int) -> Markup:
    """Return the mark of each attack store; the first comes after `runs` runs in the order of colours."""
    parts = []
    for k, attack in enumerate(select_drawn(attacks)):
        mark = element("path", d=_MARKS[k % len(_MARKS)], class_=f"f{(runs + k) % 7}")
        parts.append(join_parts(_small(mark), f"{attack.name} ({attack.images:,} images)"))
    if not parts:
        return Markup("")
    words = "Only a curve over those same images can be compared with it."
    return element("p", element("small", "Dotted with points, accuracy under attack: ", *(
        join_parts(part, "; " if k + 1 < len(parts) else ". ") for k, part in enumerate(parts)), words), id="points")


def _small(drawn: Markup) -> Markup:
    return element("svg", drawn, width="34", height="10", aria_hidden="true")
