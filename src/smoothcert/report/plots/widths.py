"""Pictures of regressions: the width of certified intervals against radius."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.kinds import PlotConfig
from smoothcert.report.plots.style import handle, in_style, legend, look, marker, open_axes
from smoothcert.results.regression import CertifiedIntervals, Widths

_POINTS = 17


@dataclass(frozen=True)
class WidthCurve:
    """The widths of one output's intervals: all along the radii, and at those of the run, where they are exact."""

    name: str
    along: list[Widths]
    certified: list[Widths]


def gather_widths(request: Request[PlotConfig]) -> list[WidthCurve]:
    """Return the curves of the runs of a picture."""
    return curves_of(request.opened)


def curves_of(runs: Sequence[CertifiedIntervals]) -> list[WidthCurve]:
    """Return a curve for each run and output, from radius 0 to the largest of the run."""
    curves = []
    for run in runs:
        along = run.at(tuple(np.linspace(0, max(run.radii), _POINTS).tolist())) if max(run.radii) else run.at((0.0,))
        own = run.at()
        for k in range(run.outputs):
            name = f"{run.name}, output {k}" if run.outputs > 1 else run.name
            curves.append(WidthCurve(name, [one for one in along if one.output == k],
                                     [one for one in own if one.output == k]))
    return curves


@in_style
def draw_widths(curves: Sequence[WidthCurve], ax: Axes | None = None) -> Figure:
    """Draw the mean width with a band of the middle 80 %; marks are the radii of the run."""
    figure, axes = open_axes(ax, xlabel="l2 radius (units of the inputs)",
                             ylabel="width of the interval (units of the output)")
    for number, curve in enumerate(curves):
        style, radius = look(number), [one.radius for one in curve.along]
        axes.plot(radius, [one.mean for one in curve.along], **style)
        axes.fill_between(radius, [one.low for one in curve.along], [one.high for one in curve.along],
                          color=style["color"], alpha=0.15, linewidth=0)
        axes.plot([one.radius for one in curve.certified], [one.mean for one in curve.certified], marker(number),
                  color=style["color"])
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    legend(axes, [handle(number) for number in range(len(curves))], [curve.name for curve in curves], loc="upper left")
    return figure

