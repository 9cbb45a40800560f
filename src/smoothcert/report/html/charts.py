"""The arrays that the page's script draws: thinned, and never above what was certified."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.report.html.facts import Run
from smoothcert.report.html.markup import Markup, embedded, rounded_down
from smoothcert.results.attacked import Attack
from smoothcert.results.attacks import axis_of, empirical_curve, norm_of
from smoothcert.results.curves import COLUMNS, corners
from smoothcert.results.studies import top_shares, votes_of, wall

LOWER = (("test_set", "this test set, at least"), ("population", "new images, at least"),
         ("all_radii", "this test set, all radii at once"))
"""Lower bounds that the page can show, and their words."""

_POINTS = 150_000
"""Points of all runs' curves together."""


def chart_data(runs: Sequence[Run], rho: float) -> Iterator[dict[str, Any]]:
    """Of each run what its curves are drawn from: fractions and radii, cut to six decimals.

    A curve has its whole value at every edge of a fine column (see `report.thin`); with many runs columns are wider.
    """
    columns = max(30, min(COLUMNS, _POINTS // (2 * len(runs))))
    for run in runs:
        result, walls = run.result, wall([run.result], columns)
        at = result.at(corners(result, columns), rho)
        most = float(walls.wall[0])
        yield {
            "name": run.name, "sigma": None if np.isnan(result.sigma) else result.sigma, "acr": result.acr,
            "dimension": _dimension(run), "lowerBound": result.is_lower_bound, "radius": rounded_down(at.radii),
            "accuracy": rounded_down(at.accuracy), **{name: rounded_down(getattr(at, name)) for name, _ in LOWER},
            "wall": {"share": rounded_down(walls.share[0]), "radius": rounded_down(walls.radii[0]),
                     "most": None if np.isnan(most) else most, "at": float(walls.at_wall[0])},
            "votes": _votes(run),
        }


def packed(charts: Iterable[dict[str, Any]], attacks: Sequence[Attack]) -> Markup:
    """All that the page draws, as JSON in little room: `levels` are the distinct accuracies with their bounds, and `at`
    of a run says which of them stands at each of its radii. Made run by run: of many they are megabytes of numbers."""
    fields = ("accuracy", *(name for name, _ in LOWER))
    levels: dict[tuple[float, ...], int] = {}
    runs = []
    for chart in charts:
        points = zip(*(chart.pop(field) for field in fields), strict=True)
        runs.append(embedded({**chart, "at": [levels.setdefault(point, len(levels)) for point in points]}))
    return Markup("".join(['{"runs":[', ",".join(runs), '],"fields":', embedded(fields), ',"levels":',
                           embedded(list(levels)), ',"attacks":', embedded(attack_points(attacks)), "}"]))


def drawn_attacks(attacks: Sequence[Attack]) -> list[Attack]:
    """The attack stores that have a place beside l2 radii: those over eps, bounded in l2."""
    return [one for one in attacks if axis_of(one.store) == "eps" and norm_of(one.store) == "l2"]


def attack_points(attacks: Sequence[Attack]) -> list[dict[str, Any]]:
    """Empirical accuracy at each l2 size of the attacks that are drawn, at their largest m, steps and n."""
    curves = [empirical_curve(attack.store, name=attack.name) for attack in drawn_attacks(attacks)]
    return [{"name": curve.name, "size": curve.size.tolist(), "accuracy": rounded_down(curve.accuracy)}
            for curve in curves]


def _dimension(run: Run) -> int | None:
    shape = (run.result.setting.get("data") or {}).get("shape")
    return int(np.prod(shape)) if shape else None


def _votes(run: Run) -> dict[str, list[float]] | None:
    """Histograms of the top class's share, or None where the counts cannot tell."""
    try:
        shares = top_shares([(run.name, votes_of(run.store), run.result.level)])
    except StoreError:
        return None
    return {"edges": shares.edges.tolist(), "observed": rounded_down(shares.observed[0]),
            "lower": rounded_down(shares.lower[0])}
