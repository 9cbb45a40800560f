"""Pictures of curves: certified accuracy against radius in its several forms, and bounds on the loss against rho."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from smoothcert.errors import InputError
from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.kinds import BoundsPlot, CurvesPlot, ProjectionPlot
from smoothcert.report.plots.style import (
    COLOURS,
    INK,
    handle,
    in_style,
    legend,
    look,
    marker,
    new_figure,
    open_axes,
    save,
)
from smoothcert.results.attacks import AttackResult, axis_of, empirical_curve, norm_of
from smoothcert.results.certified import Result
from smoothcert.results.curves import (
    BoundPanel,
    CertifiedCurve,
    Envelope,
    Upper,
    bound_panels,
    curve_of,
    envelopes,
    upper_bound,
    value_at,
)
from smoothcert.results.studies import Theorems, among, compare_bounds, project_over_alpha, project_over_n, theorems
from smoothcert.stats import clopper_pearson

RADIUS = "l2 radius (units of the data)"
NORMS = {"l2": "l2", "linf": "l-infinity"}
_MARKS = 7
_DASHES = {"certificate": "-", "bound": (0, (5, 1.5)), "found": (0, (1.2, 1.2))}
_UPPER = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Observed:
    """Empirical accuracy under attacks of size eps: accuracy (E,) at eps (E,), with an interval (E,) each."""

    name: str
    eps: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Empirical:
    """Certified curves, and the empirical accuracies that are drawn beside them."""

    curves: list[CertifiedCurve]
    observed: list[Observed]
    norm: str = "l2"


@dataclass(frozen=True)
class Envelopes:
    """The best of each method: of certified runs at each radius, and of attack stores at each eps.

    `runs` are the accuracies of the attack stores themselves.
    """

    certified: list[Envelope]
    attacked: list[Observed]
    runs: list[Observed]
    norm: str = "l2"


def gather_curves(request: Request[CurvesPlot]) -> list[CertifiedCurve | Upper]:
    """Return certified curves, and the empirical upper bounds that attack stores prove."""
    results, attacks = _split(request.opened)
    return [*(curve_of(result, request.options.rho) for result in results),
            *(upper_bound(attack.store, attack.name) for attack in attacks)]


def gather_envelopes(request: Request[CurvesPlot]) -> Envelopes:
    """Return the best of each method, of certified runs or of attack stores."""
    results, attacks = _split(request.opened)
    if results and attacks:
        raise InputError("envelope shows certify stores or attack stores: give one kind alone")
    if results:
        return Envelopes(envelopes(results, request.options.rho), [], [])
    norm = _common_norm(attacks)
    runs = [accuracies_under_attack(attack, request.options.rho / len(attacks))[-1] for attack in attacks]
    groups: dict[str, list[Observed]] = {}
    for attack, run in zip(attacks, runs, strict=True):
        groups.setdefault(attack.group, []).append(run)
    return Envelopes([], [best_under_attack(group, members) for group, members in groups.items()], runs, norm)


def gather_empirical(request: Request[CurvesPlot]) -> Empirical:
    """Return certified curves, and the accuracies under attack."""
    results, attacks = _split(request.opened)
    norm = _common_norm(attacks)
    curves = [curve_of(result if norm == "l2" else result.in_linf(), request.options.rho) for result in results]
    return Empirical(curves, [one for attack in attacks
                              for one in accuracies_under_attack(attack, request.options.rho)], norm)


def share_attacked(opened: Sequence[Result | AttackResult]) -> list[Result | AttackResult]:
    """Return the certified runs with only the images that were attacked, and the attack stores."""
    results, attacks = _split(opened)
    if not attacks or not results:
        raise InputError("empirical shows certify stores beside attack stores: give at least one of each")
    attacked = np.unique(np.concatenate([attack.index for attack in attacks]))
    return [*(among(result, attacked) for result in results), *attacks]


def gather_bounds(request: Request[BoundsPlot]) -> list[CertifiedCurve]:
    """Return the curves of one run's counts under several theorems."""
    return compare_bounds(*request.only, request.options.rho)


def gather_theorems(request: Request[Any]) -> Theorems:
    """Return the radii of several theorems at one run's sigma."""
    return theorems(request.only[0])


def gather_projection(request: Request[ProjectionPlot]) -> list[CertifiedCurve]:
    """Return the curves of one run at other n or alpha."""
    (store, name), options = request.only, request.options
    if options.alpha:
        return project_over_alpha(store, name, options.alpha, options.rho)
    taken = Result.of(store).n or 0
    return project_over_n(store, name, options.n or [taken // 10 or 1, taken * 10, taken * 100], options.rho)


def gather_bounds_on_loss(request: Request[Any]) -> list[BoundPanel]:
    """Return the bounds of runs on the expected loss, and the worst cases found."""
    return bound_panels(request.opened)


def _split(opened: Sequence[Result | AttackResult]) -> tuple[list[Result], list[AttackResult]]:
    """Return the certified runs and the attack stores."""
    return [one for one in opened if isinstance(one, Result)], [one for one in opened if isinstance(one, AttackResult)]


def accuracies_under_attack(attack: AttackResult, rho: float = 0.05) -> list[Observed]:
    """Return the accuracy under attack for every m, the smallest first, with intervals of probability 1 - rho."""
    store = attack.store
    if axis_of(store) != "eps":
        raise InputError(f"{store.folder} attacked each image at multiples of its own radius: it has no curve over eps")
    copies, images, found = store.identity.attack.m, len(np.unique(store.column("index"))), []
    for m in copies:
        curve = empirical_curve(store, m=m)
        right = np.rint(curve.accuracy * images).astype(np.int64)
        low, high = (np.asarray(clopper_pearson(right, images, rho / 2, side)) for side in ("lower", "upper"))
        words = f"{attack.name}, under attack" + (f", m {m}" if len(copies) > 1 else "")
        found.append(Observed(words, curve.size, curve.accuracy, low, high))
    return found


def best_under_attack(group: str, runs: Sequence[Observed]) -> Observed:
    """Return the best of several models under attack, at the sizes that all were attacked with."""
    common = sorted(set.intersection(*(set(run.eps.tolist()) for run in runs)))
    if len(common) < 2:
        raise InputError(f"the attacks of {group or 'these stores'} have no sizes in common: attack all with the same "
                         f"eps")
    at = [np.searchsorted(run.eps, common) for run in runs]
    accuracy, low, high = (np.stack([getattr(run, field)[rows] for run, rows in zip(runs, at, strict=True)]).max(axis=0)
                           for field in ("accuracy", "low", "high"))
    return Observed(group, np.array(common), accuracy, low, high)


def _common_norm(attacks: Sequence[AttackResult]) -> str:
    """Return the norm that bounds all attacks; raise InputError where they have several."""
    norms = {norm_of(attack.store) for attack in attacks}
    if len(norms) > 1:
        raise InputError(f"the attacks are bounded in different norms ({', '.join(sorted(norms))}): draw each alone")
    return norms.pop()


def plot_curves(curves: Sequence[CertifiedCurve | Upper], files: Sequence[Path] = (), title: str = "") -> Figure:
    """Draw certified accuracy against radius, write it into `files` (PNG, SVG or PDF by ending), return the figure."""
    figure = draw_curves(curves)
    for file in files:
        save(figure, file, title)
    return figure


@in_style
def draw_curves(curves: Sequence[CertifiedCurve | Upper], ax: Axes | None = None) -> Figure:
    """Draw step curves with a band down to their lower bound, and empirical upper bounds as dashed lines."""
    certified = [one for one in curves if isinstance(one, CertifiedCurve)]
    uppers = [one for one in curves if isinstance(one, Upper)]
    figure, axes = _axes("certified accuracy (%)" if not uppers else "accuracy (%)", ax)
    right = max([_furthest(certified), *(float(one.radius[-1]) * 1.03 for one in uppers)])
    for number, curve in enumerate(certified):
        _step(axes, curve, number, right)
    drawn = [axes.step(one.radius, 100 * one.accuracy, where="post", color=INK, linestyle=_UPPER[k % len(_UPPER)],
                       linewidth=1.4)[0] for k, one in enumerate(uppers)]
    _finish(axes, right, [curve.name for curve in certified],
            extra=[(line, f"{one.name}, empirical upper bound") for line, one in zip(drawn, uppers, strict=True)])
    return figure


@in_style
def draw_envelopes(data: Envelopes, ax: Axes | None = None) -> Figure:
    """Draw the runs in thin lines, and over them the best of each method at each radius with the joint lower bound."""
    under_attack = bool(data.runs)
    figure, axes = _axes("accuracy under attack (%)" if under_attack else "certified accuracy (%)", ax)
    curves = [curve for one in data.certified for curve in one.curves]
    right = max([_furthest(curves), *(float(one.eps.max()) * 1.04 for one in data.runs)])
    for number, curve in enumerate(curves):
        _step(axes, curve, number, right, band=False, width=1.1)
    for number, one in enumerate(data.runs):
        axes.plot(one.eps, 100 * one.accuracy, linewidth=1.0, marker=marker(number), **look(number))
    bests = [*((one.name, one.radius, one.accuracy, one.lower, True) for one in data.certified),
             *((one.name, one.eps, one.accuracy, one.low, False) for one in data.attacked)]
    extra = []
    for k, (name, radius, accuracy, lower, step) in enumerate(bests):
        colour = COLOURS[k % len(COLOURS)] if len(bests) > 1 else INK
        line = (axes.step(radius, 100 * accuracy, where="pre", color=colour, linewidth=3.2, alpha=0.35) if step else
                axes.plot(radius, 100 * accuracy, color=colour, linewidth=3.2, alpha=0.35))[0]
        _band(axes, radius, lower, accuracy, colour, "pre" if step else None)
        extra.append((line, f"{'oracle: ' if step else ''}best of {name or 'all'}, with joint lower bound"))
    names = [curve.name for curve in curves] or [one.name for one in data.runs]
    _finish(axes, right, names, extra=extra)
    if under_attack:
        axes.set_xlabel(f"size of the attack, {NORMS[data.norm]} (units of the data)")
    return figure


@in_style
def draw_empirical(data: Empirical, ax: Axes | None = None) -> Figure:
    """Draw certified curves, and accuracy under attack at each eps with its interval."""
    figure, axes = _axes("accuracy (%)", ax)
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
    axes.set_xlabel(f"{NORMS[data.norm]} radius, or size of the attack (units of the data)")
    return figure


@in_style
def draw_theorems(data: Theorems) -> Figure:
    """Draw a line for each theorem over p_A, a tick for each certified image; beside it what n samples can prove."""
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
    legend(left, [*(handle(number) for number in range(len(data.radii))), ticks[0]],
           [*data.radii, "images of the run"])
    line = right.plot(data.samples, data.most, **look(0))
    own = right.plot(data.n, np.interp(data.n, data.samples, data.most), "o", color=INK)
    right.set(xscale="log", xlim=(data.samples[0], data.samples[-1]), xlabel="samples, all of which agree")
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(right, [*line, *own], [f"r_max at alpha {data.alpha:g}", f"n of the run, {data.n:,}"], loc="lower right")
    return figure


@in_style
def draw_bounds_on_loss(panels: Sequence[BoundPanel]) -> Figure:
    """Draw a panel for each cost: colours tell runs apart, dashes the kinds of line; marks are ascents."""
    figure = new_figure(6.4 if len(panels) == 1 else 9.6)
    top = (panels[0].ceiling or max(float(one.loss.max()) for panel in panels for one in panel.lines) or 1.0) * 1.05
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number, title=panel.title, ylim=(0, top),
                                  xlabel="rho (mean squared l2 move)", ylabel=f"expected loss: {panel.loss}")
        lines = [Line2D(one.rho, one.loss, color=look(one.run)["color"], linestyle=_DASHES[one.kind],
                        marker=marker(one.run) if one.kind == "found" else None) for one in panel.lines]
        for line in lines:
            axes.add_line(line)
        axes.set_xlim(0, max(float(one.rho[-1]) for one in panel.lines) * 1.03)
        legend(axes, lines, [one.name for one in panel.lines], loc="best")
    return figure


def _axes(ylabel: str, ax: Axes | None) -> tuple[Figure, Axes]:
    return open_axes(ax, xlabel=RADIUS, ylabel=ylabel, ylim=(0, 100))


def _furthest(curves: Sequence[CertifiedCurve]) -> float:
    return max((float(curve.radius[-1]) for curve in curves), default=0.0) * 1.03


def _step(axes: Any, curve: CertifiedCurve, number: int, right: float, band: bool = True,
          width: float | None = None) -> None:
    """Draw one curve; its markers stand on it at radii of their own, so that they part where curves run together."""
    style = look(number)
    axes.step(curve.radius, 100 * curve.accuracy, where="pre", linewidth=width, **style)
    if band:
        _band(axes, curve.radius, curve.lower, curve.accuracy, style["color"])
    at = (np.arange(_MARKS) + (0.2 + 0.618 * number) % 1) / _MARKS * right
    at = at[at < curve.radius[-1]]
    axes.plot(at, 100 * value_at(curve, at), marker(number), color=style["color"])


def _band(axes: Any, radius: np.ndarray, lower: np.ndarray, accuracy: np.ndarray, colour: str,
          step: Literal["pre"] | None = "pre") -> None:
    """Fill from a curve down to its lower bound, with an edge: the band of few images is as thin as the curve."""
    axes.fill_between(radius, 100 * lower, 100 * accuracy, step=step, facecolor=(colour, 0.22),
                      edgecolor=(colour, 0.8), linewidth=0.7)


def _finish(axes: Any, right: float, names: list[str], extra: Sequence[tuple[Any, str]] = ()) -> None:
    """End the axis of radii, and draw a legend of the first series and of what else was drawn."""
    axes.set_xlim(0, right or 1.0)
    legend(axes, [handle(number) for number in range(len(names))] + [drawn for drawn, _ in extra],
           names + [words for _, words in extra])
