"""Pictures of multi-label runs: the labels that are right and certified against radius."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.kinds import PlotConfig
from smoothcert.report.plots.style import handle, in_style, legend, look, open_axes
from smoothcert.results.multi_label import CertifiedLabels

_POINTS = 65


@dataclass(frozen=True)
class LabelCurve:
    """Shares in percent along the radii: of the inputs with all labels right and certified, and of all labels."""

    name: str
    radii: list[float]
    exact: list[float]
    mean: list[float]


def gather_labels(request: Request[PlotConfig]) -> list[LabelCurve]:
    """Return the curves of the runs of a picture."""
    return label_curves(request.opened)


def label_curves(runs: Sequence[CertifiedLabels]) -> list[LabelCurve]:
    """Return a curve for each run, up to the largest radius that it certifies."""
    curves = []
    for run in runs:
        radii = np.linspace(0, float(run.answers.holm.max()), _POINTS).tolist()
        found = run.at(radii)
        curves.append(LabelCurve(run.name, radii, [100 * one.exact for one in found],
                                 [100 * one.mean for one in found]))
    return curves


@in_style
def draw_labels(curves: Sequence[LabelCurve], ax: Axes | None = None) -> Figure:
    """Draw the share of inputs with all labels right and certified, and, dotted, the share of all labels."""
    figure, axes = open_axes(ax, xlabel="l2 radius (units of the inputs)", ylabel="right and certified (%)")
    for number, curve in enumerate(curves):
        style = look(number)
        axes.plot(curve.radii, curve.exact, **style)
        axes.plot(curve.radii, curve.mean, color=style["color"], linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    legend(axes, [handle(number) for number in range(len(curves))],
           [f"{curve.name}: all labels (dotted: the mean label)" for curve in curves], loc="upper right")
    return figure
