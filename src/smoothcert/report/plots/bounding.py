"""Distributional bounds beside the worst case found."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smoothcert.report.plots.style import legend, look, marker, new_figure, styled
from smoothcert.results.bound_curves import Panel

_DASHES = {"certificate": "-", "bound": (0, (5, 1.5)), "found": (0, (1.2, 1.2))}


@styled
def draw_bounds(panels: Sequence[Panel]) -> Figure:
    """A panel for each cost: colours tell runs apart, dashes what a line is; the worst case has a mark at each ascent.
    """
    figure = new_figure(6.4 if len(panels) == 1 else 9.6)
    top = (panels[0].ceiling or max(float(one.loss.max()) for panel in panels for one in panel.series) or 1.0) * 1.05
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number, title=panel.title, ylim=(0, top),
                                  xlabel="rho (mean squared l2 move)", ylabel=f"expected loss: {panel.loss}")
        lines = [Line2D(one.rho, one.loss, color=look(one.run)["color"], linestyle=_DASHES[one.kind],
                        marker=marker(one.run) if one.kind == "found" else None) for one in panel.series]
        for line in lines:
            axes.add_line(line)
        axes.set_xlim(0, max(float(one.rho[-1]) for one in panel.series) * 1.03)
        legend(axes, lines, [one.name for one in panel.series], loc="best")
    return figure
