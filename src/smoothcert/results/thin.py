"""Curves with as many points as can be seen: the same picture from far fewer corners."""

import numpy as np

from smoothcert.results.certified import Result
from smoothcert.results.curves import Curve

COLUMNS = 2000
"""Columns of the finest picture that a thinned curve is meant for."""


def thinned(steps: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """The first and the last of the sorted radii `steps` in each of `columns` equal columns of [0, steps[-1]].

    A step curve drawn through these has the value of the whole curve at every edge of a column, and spans the same
    values within each: at that width nothing else can be seen.
    """
    if len(steps) <= 2 * columns:
        return steps
    column = np.searchsorted(np.linspace(0, steps[-1], columns + 1), steps, side="left")
    change = np.flatnonzero(np.diff(column))
    kept = np.unique(np.concatenate([[0], change, change + 1, [len(steps) - 1]]))
    return steps[kept]


def corners(result: Result, columns: int = COLUMNS) -> np.ndarray:
    """The radii at which a run's curve is drawn: 0, its steps (thinned), and the float after the last."""
    steps = thinned(np.unique(result.radius[result.correct]), columns)
    return np.concatenate([[0.0], steps, np.nextafter(steps[-1:], np.inf)])


def drawn_curve(result: Result, rho: float = 0.05, columns: int = COLUMNS) -> Curve:
    """The curve of a run as it is drawn: at each corner its certified accuracy, and the bound on this test set."""
    at = result.at(corners(result, columns), rho)
    name = f"{result.name} (lower bound)" if result.is_lower_bound else result.name
    return Curve(name, at.radii, at.accuracy, at.test_set)


def value_at(curve: Curve, radius: np.ndarray, field: str = "accuracy") -> np.ndarray:
    """A curve's `accuracy` or `lower` at any radii: that of the first corner at or beyond each, else 0."""
    place = np.searchsorted(curve.radius, radius, side="left")
    values = np.append(getattr(curve, field), 0.0)
    return values[place]
