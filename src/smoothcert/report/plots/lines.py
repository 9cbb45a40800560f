"""Certified accuracy against radius, in its several forms: each an array -> figure function."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothcert.report.curves import Curve
from smoothcert.report.plots.style import INK, handle, legend, look, marker, new_figure, styled
from smoothcert.report.studies import Envelope
from smoothcert.report.thin import value_at

RADIUS = "l2 radius (pixel units of [0, 1])"
NORMS = {"l2": "l2", "linf": "l-infinity"}
_MARKS = 7


@dataclass(frozen=True)
class Observed:
    """Empirical accuracy under attacks of l2 size eps: accuracy (E,) at eps (E,), with a 95 % interval (E,) each."""

    name: str
    eps: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Empirical:
    """Certified curves, and the empirical accuracies to be drawn beside them."""

    curves: list[Curve]
    observed: list[Observed]
    norm: str = "l2"


@styled
def draw_curves(curves: Sequence[Curve], why_not: str = "") -> Figure:
    """Step curves with a band down to their lower bound; `why_not` says why they are not to be compared."""
    figure, axes = _axes("certified accuracy (%)")
    right = _furthest(curves)
    for number, curve in enumerate(curves):
        _step(axes, curve, number, right)
    _finish(axes, right, [curve.name for curve in curves], range(len(curves)))
    if why_not:
        axes.set_title("\n".join(wrap(f"Not to be compared: {why_not}", 100)[:4]), fontsize=8, loc="left")
    return figure


@styled
def draw_envelope(data: Envelope) -> Figure:
    """The runs in thin lines, and over them the best of them at each radius with the joint lower bound."""
    figure, axes = _axes("certified accuracy (%)")
    right = _furthest(data.curves)
    for number, curve in enumerate(data.curves):
        _step(axes, curve, number, right, band=False, width=1.1)
    axes.step(data.radius, 100 * data.accuracy, where="pre", color=INK, linewidth=3.2, alpha=0.35)
    best = axes.lines[-1]
    _band(axes, data.radius, data.lower, data.accuracy, INK)
    _finish(axes, right, [curve.name for curve in data.curves], range(len(data.curves)),
            extra=[(best, "best of all, with joint lower bound")])
    return figure


@styled
def draw_empirical(data: Empirical) -> Figure:
    """Certified curves, and accuracy under attack at each eps with its interval."""
    figure, axes = _axes("accuracy (%)")
    right = max(_furthest(data.curves), *(float(one.eps.max()) * 1.04 for one in data.observed), 0.0)
    for number, curve in enumerate(data.curves):
        _step(axes, curve, number, right)
    drawn = []
    for number, one in enumerate(data.observed, start=len(data.curves)):
        style = look(number)
        error = 100 * np.stack([one.accuracy - one.low, one.high - one.accuracy])
        drawn.append(axes.errorbar(one.eps, 100 * one.accuracy, np.maximum(error, 0), color=style["color"], capsize=2.5,
                                   elinewidth=1, linewidth=0.8, linestyle=style["linestyle"], marker=marker(number)))
    _finish(axes, right, [curve.name for curve in data.curves], range(len(data.curves)),
            extra=[(bars, one.name) for bars, one in zip(drawn, data.observed, strict=True)])
    axes.set_xlabel(f"{NORMS[data.norm]} radius, or size of the attack (pixel units of [0, 1])")
    return figure


def _axes(ylabel: str) -> tuple[Figure, Any]:
    figure = new_figure()
    return figure, figure.add_subplot(xlabel=RADIUS, ylabel=ylabel, ylim=(0, 100))


def _furthest(curves: Sequence[Curve]) -> float:
    return max((float(curve.radius[-1]) for curve in curves), default=0.0) * 1.03 or 1.0


def _step(axes: Any, curve: Curve, number: int, right: float, band: bool = True, width: float | None = None) -> None:
    """One curve; its markers stand on it at radii of their own, so that they part where curves run together."""
    style = look(number)
    axes.step(curve.radius, 100 * curve.accuracy, where="pre", linewidth=width, **style)
    if band:
        _band(axes, curve.radius, curve.lower, curve.accuracy, style["color"])
    at = (np.arange(_MARKS) + (0.2 + 0.618 * number) % 1) / _MARKS * right
    at = at[at < curve.radius[-1]]
    axes.plot(at, 100 * value_at(curve, at), marker(number), color=style["color"])


def _band(axes: Any, radius: np.ndarray, lower: np.ndarray, accuracy: np.ndarray, colour: str) -> None:
    """From a curve down to its lower bound, with an edge: of few images the band is as thin as the curve's own line."""
    axes.fill_between(radius, 100 * lower, 100 * accuracy, step="pre", facecolor=(colour, 0.22),
                      edgecolor=(colour, 0.8), linewidth=0.7)


def _finish(axes: Any, right: float, names: list[str], numbers: Sequence[int],
            extra: Sequence[tuple[Any, str]] = ()) -> None:
    axes.set_xlim(0, right)
    handles = [handle(number) for number in numbers] + [drawn for drawn, _ in extra]
    legend(axes, handles, names + [words for _, words in extra])
