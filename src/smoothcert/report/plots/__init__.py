"""Pictures, with matplotlib: readable printed grey and by colour-blind people; the same bytes for the same input."""

from collections.abc import Sequence
from pathlib import Path

from smoothcert.report.plots.lines import draw_curves
from smoothcert.report.plots.style import save
from smoothcert.results.curves import Curve


def plot_curves(curves: Sequence[Curve], files: Sequence[Path], title: str = "") -> None:
    """Draw certified accuracy against radius into `files` (PNG, SVG or PDF by ending); the band is its lower bound."""
    figure = draw_curves(curves)
    for file in files:
        save(figure, file, title)


__all__ = ["plot_curves"]
