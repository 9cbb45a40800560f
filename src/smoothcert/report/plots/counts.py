"""Pictures of the votes and radii of whole runs: abstention, votes, wall, scatter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.style import (
    COLOURS,
    FAINT,
    NAMED,
    handle,
    in_style,
    legend,
    look,
    marker,
    new_figure,
    open_axes,
)
from smoothcert.results.base import check_same_data
from smoothcert.results.certified import ASSUMED_ALPHA, Result
from smoothcert.results.figures import down, percent
from smoothcert.results.studies import Pairs, Shares, TopShares, Wall, among, pairs, shares, top_shares, wall

_DENSE = 5000
"""With more points a scatter is drawn as a map of their number."""


def gather_shares(request: Request[Any]) -> Shares:
    """Return right, wrong and abstained shares of each run."""
    return shares(request.opened)


def gather_top_shares(request: Request[Any]) -> TopShares:
    """Return histograms of the chosen class's share in each run."""
    return top_shares([(run.name, votes, ASSUMED_ALPHA if run.alpha is None else run.alpha)
                       for run, votes in request.opened])


def gather_wall(request: Request[Any]) -> Wall:
    """Return the sorted radii of each run, and its r_max."""
    return wall(request.opened)


def gather_pairs(request: Request[Any]) -> Pairs:
    """Return the radii of the images of two runs."""
    return pairs(*request.opened)


def share_images(opened: Sequence[Result]) -> list[Result]:
    """Return two runs with only the images that both have."""
    check_same_data(opened)
    first, second = opened
    return [among(first, second.index), among(second, first.index)]


@in_style
def draw_abstention(data: Shares, ax: Axes | None = None) -> Figure:
    """Draw a bar for each run: certified and right, certified and wrong, abstained."""
    figure, axes = open_axes(ax, 6.4, 1.5 + 0.45 * len(data.names), xlabel="images (%)", xlim=(0, 100))
    rows, left = np.arange(len(data.names)), np.zeros(len(data.names))
    parts = (("certified, right", data.right, COLOURS[0], ""), ("certified, wrong", data.wrong, COLOURS[1], "////"),
             ("abstained", data.abstained, "#cccccc", "...."))
    for _, share, colour, hatch in parts:
        axes.barh(rows, 100 * share, left=100 * left, color=colour, hatch=hatch, edgecolor="white", height=0.7)
        left = left + share
    axes.set_yticks(rows, data.names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="white") for _, _, colour, hatch in parts]
    names = [words for words, *_ in parts]
    if ax is None:
        figure.legend(patches, names, loc="outside lower center", ncols=3)
    else:
        axes.legend(patches, names)
    return figure


@in_style
def draw_top_shares(data: TopShares) -> Figure:
    """Draw histograms of p_A: the observed share above, its lower bound below; a logarithmic share of images."""
    figure = new_figure(6.4, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, counted, words in ((upper, data.observed, "observed share of the top class"),
                                 (lower, data.lower, "lower bound of p_A")):
        for number, values in enumerate(counted):
            axes.stairs(100 * values, data.edges, **look(number), linewidth=1.6)
        axes.set(yscale="log", ylabel="images (%)", title=words)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())  # by default formulas, which this style draws as they are
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
    lower.set(xlabel="share of the votes", xlim=(0, 1))
    legend(upper, [handle(k) for k in range(len(data.names))], data.names, loc="upper left")
    return figure


@in_style
def draw_wall(data: Wall, ax: Axes | None = None) -> Figure:
    """Draw radii in falling order under r_max, the most that the samples could prove."""
    figure, axes = open_axes(ax, height=4.0 + 0.17 * min(len(data.names), NAMED + 1), xlim=(0, 100),
                             xlabel="images, largest radius first (% of the run)",
                             ylabel="certified l2 radius (units of the data)")
    for number, (radii, share) in enumerate(zip(data.radii, data.share, strict=True)):
        style = look(number)
        axes.plot(100 * share, radii, **style)
        some = np.linspace(0, len(radii) - 1, 7).astype(int)[:-1] if len(radii) > 7 else np.arange(0)
        axes.plot(100 * share[some], radii[some], marker(number), color=style["color"])
        if np.isfinite(data.wall[number]):
            axes.axhline(data.wall[number], color=style["color"], linewidth=0.9, linestyle=style["linestyle"])
    top = max((float(values.max(initial=0)) for values in [*data.radii, data.wall[np.isfinite(data.wall)]]), default=0)
    axes.set_ylim(0, 1.08 * top or 1.0)
    words = [f"r_max {down(top, 3)}: {percent(share)} % of images at it" if np.isfinite(top) else "r_max unknown"
             for top, share in zip(data.wall, data.at_wall, strict=True)]
    legend(figure if ax is None else axes, [handle(k) for k in range(len(words))],
           [f"{name} ({word})" for name, word in zip(data.names, words, strict=True)],
           loc="outside lower left" if ax is None else "best")
    return figure


@in_style
def draw_scatter(data: Pairs, ax: Axes | None = None) -> Figure:
    """Draw the radius of each image in two runs; above the diagonal the second run proves more."""
    figure, axes = open_axes(ax, 4.8, 4.6, xlabel=f"radius in {data.names[0]}", ylabel=f"radius in {data.names[1]}",
                             aspect="equal")
    top = float(max(data.first.max(), data.second.max())) * 1.03 or 1.0
    if len(data.first) > _DENSE:
        cells, _, _ = np.histogram2d(data.first, data.second, bins=80, range=[[0, top], [0, top]])
        drawn = axes.pcolormesh(np.linspace(0, top, 81), np.linspace(0, top, 81), np.where(cells > 0, cells, np.nan).T,
                                norm=LogNorm(1, max(cells.max(), 2)), cmap="cividis_r")
        bar = figure.colorbar(drawn, ax=axes, label="images", shrink=0.8)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    else:
        axes.plot(data.first, data.second, "o", color=COLOURS[0], alpha=0.45, markersize=3.5, markeredgewidth=0)
    axes.plot([0, top], [0, top], color=FAINT, linewidth=1, linestyle="--")
    more, less = (np.mean(data.second > data.first), np.mean(data.second < data.first))
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.set_title(f"{len(data.first):,} images: {100 * more:.1f} % larger in the second, "
                   f"{100 * less:.1f} % in the first", fontsize=8.5)
    return figure
