"""Certified accuracy against radius, in its several forms: each an array -> figure function."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from smoothcert.report.plots.style import COLOURS, INK, handle, legend, look, marker, new_figure, styled
from smoothcert.results.curves import Curve
from smoothcert.results.studies import Envelope, Theorems
from smoothcert.results.thin import value_at
from smoothcert.results.upper import Upper

RADIUS = "l2 radius (pixel units of [0, 1])"
NORMS = {"l2": "l2", "linf": "l-infinity"}
_MARKS = 7
_UPPER = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


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
def draw_curves(curves: Sequence[Curve], uppers: Sequence[Upper] = ()) -> Figure:
    """Step curves with a band down to their lower bound, and empirical upper bounds as dashed lines."""
    figure, axes = _axes("certified accuracy (%)" if not uppers else "accuracy (%)")
    right = max([_furthest(curves), *(float(one.radius[-1]) * 1.03 for one in uppers)])
    for number, curve in enumerate(curves):
        _step(axes, curve, number, right)
    drawn = [axes.step(one.radius, 100 * one.accuracy, where="post", color=INK, linestyle=_UPPER[k % len(_UPPER)],
                       linewidth=1.4)[0] for k, one in enumerate(uppers)]
    _finish(axes, right, [curve.name for curve in curves],
            extra=[(line, f"{one.name}, empirical upper bound") for line, one in zip(drawn, uppers, strict=True)])
    return figure


@dataclass(frozen=True)
class Envelopes:
    """Envelopes of certified runs, one for each method, and the best of attack stores at each eps, of each method.

    `runs` are the accuracies of the attack stores themselves.
    """

    certified: list[Envelope]
    attacked: list[Observed]
    runs: list[Observed]
    norm: str = "l2"


@styled
def draw_envelopes(data: Envelopes) -> Figure:
    """The runs in thin lines, and over them the best of each method at each radius with the joint lower bound."""
    under_attack = bool(data.runs)
    figure, axes = _axes("accuracy under attack (%)" if under_attack else "certified accuracy (%)")
    curves = [curve for one in data.certified for curve in one.curves]
    right = max([_furthest(curves), *(float(one.eps.max()) * 1.04 for one in data.runs)])
    for number, curve in enumerate(curves):
        _step(axes, curve, number, right, band=False, width=1.1)
    for number, one in enumerate(data.runs):
        axes.plot(one.eps, 100 * one.accuracy, linewidth=1.0, marker=marker(number), **look(number))
    extra, several = [], len(data.certified) + len(data.attacked) > 1
    for k, (name, radius, accuracy, lower, step) in enumerate(_bests(data)):
        colour = COLOURS[k % len(COLOURS)] if several else INK
        line = (axes.step(radius, 100 * accuracy, where="pre", color=colour, linewidth=3.2, alpha=0.35) if step else
                axes.plot(radius, 100 * accuracy, color=colour, linewidth=3.2, alpha=0.35))[0]
        _band(axes, radius, lower, accuracy, colour, "pre" if step else None)
        extra.append((line, f"best of {name or 'all'}, with joint lower bound"))
    names = [curve.name for curve in curves] or [one.name for one in data.runs]
    _finish(axes, right, names, extra=extra)
    if under_attack:
        axes.set_xlabel(f"size of the attack, {NORMS[data.norm]} (pixel units of [0, 1])")
    return figure


def _bests(data: Envelopes) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, bool]]:
    for one in data.certified:
        yield one.name, one.radius, one.accuracy, one.lower, True
    for one in data.attacked:
        yield one.name, one.eps, one.accuracy, one.low, False


@styled
def draw_empirical(data: Empirical) -> Figure:
    """Certified curves, and accuracy under attack at each eps with its interval."""
    figure, axes = _axes("accuracy (%)")
    right = max(_furthest(data.curves), *(float(one.eps.max()) * 1.04 for one in data.observed))
    for number, curve in enumerate(data.curves):
        _step(axes, curve, number, right)
    drawn = []
    for number, one in enumerate(data.observed, start=len(data.curves)):
        style = look(number)
        error = 100 * np.stack([one.accuracy - one.low, one.high - one.accuracy])
        drawn.append(axes.errorbar(one.eps, 100 * one.accuracy, np.maximum(error, 0), color=style["color"], capsize=2.5,
                                   elinewidth=1, linewidth=0.8, linestyle=style["linestyle"], marker=marker(number)))
    _finish(axes, right, [curve.name for curve in data.curves],
            extra=[(bars, one.name) for bars, one in zip(drawn, data.observed, strict=True)])
    axes.set_xlabel(f"{NORMS[data.norm]} radius, or size of the attack (pixel units of [0, 1])")
    return figure


@styled
def draw_theorems(data: Theorems) -> Figure:
    """A line for each theorem over p_A, with a tick for each certified image; beside it what n samples can prove."""
    figure = new_figure(9.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    for number, radius in enumerate(data.radii.values()):
        left.plot(data.p_a, radius, **look(number))
        left.plot(data.p_a[20 + 9 * number :: 60], radius[20 + 9 * number :: 60], marker(number),
                  color=look(number)["color"])
    top = max(float(data.most[-1]), *(float(radius.max()) for radius in data.radii.values()))
    left.set(xlim=(0.5, 1.005), ylim=(0, 1.03 * top), ylabel=f"certified l2 radius at sigma {data.sigma:g}",
             xlabel="p_A (lower bound of the top class's probability; p_B = 1 - p_A)")
    ticks = left.plot(data.images, np.full(len(data.images), 0.012), "|", color=INK, markersize=9, alpha=0.5,
                      transform=left.get_xaxis_transform())
    _numbered(left, list(data.radii), [(ticks[0], "images of the run")])
    line = right.plot(data.samples, data.most, **look(0))
    own = right.plot(data.n, np.interp(data.n, data.samples, data.most), "o", color=INK)
    right.set(xscale="log", xlim=(data.samples[0], data.samples[-1]), xlabel="samples, all of which agree")
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(right, [*line, *own], [f"r_max at alpha {data.alpha:g}", f"n of the run, {data.n:,}"], loc="lower right")
    return figure


def _numbered(axes: Any, names: list[str], extra: Sequence[tuple[Any, str]]) -> None:
    """A legend of the first series, and of what else was drawn."""
    legend(axes, [handle(number) for number in range(len(names))] + [drawn for drawn, _ in extra],
           names + [words for _, words in extra])


def _axes(ylabel: str) -> tuple[Figure, Any]:
    figure = new_figure()
    return figure, figure.add_subplot(xlabel=RADIUS, ylabel=ylabel, ylim=(0, 100))


def _furthest(curves: Sequence[Curve]) -> float:
    return max((float(curve.radius[-1]) for curve in curves), default=0.0) * 1.03


def _step(axes: Any, curve: Curve, number: int, right: float, band: bool = True, width: float | None = None) -> None:
    """One curve; its markers stand on it at radii of their own, so that they part where curves run together."""
    style = look(number)
    axes.step(curve.radius, 100 * curve.accuracy, where="pre", linewidth=width, **style)
    if band:
        _band(axes, curve.radius, curve.lower, curve.accuracy, style["color"])
    at = (np.arange(_MARKS) + (0.2 + 0.618 * number) % 1) / _MARKS * right
    at = at[at < curve.radius[-1]]
    axes.plot(at, 100 * value_at(curve, at), marker(number), color=style["color"])


def _band(axes: Any, radius: np.ndarray, lower: np.ndarray, accuracy: np.ndarray, colour: str,
          step: Literal["pre"] | None = "pre") -> None:
    """From a curve down to its lower bound, with an edge: of few images the band is as thin as the curve's own line."""
    axes.fill_between(radius, 100 * lower, 100 * accuracy, step=step, facecolor=(colour, 0.22),
                      edgecolor=(colour, 0.8), linewidth=0.7)


def _finish(axes: Any, right: float, names: list[str], extra: Sequence[tuple[Any, str]] = ()) -> None:
    axes.set_xlim(0, right or 1.0)
    _numbered(axes, names, extra)
