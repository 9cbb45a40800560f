"""Pictures, with matplotlib: readable printed grey and by colour-blind people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smoothcert.report.curves import Curve
from smoothcert.runs.files import make_folder, write_whole

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":")
STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "smoothcert",
         "svg.fonttype": "none", "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6}


def plot_curves(curves: Sequence[Curve], files: Sequence[Path], title: str = "") -> None:
    """Draw certified accuracy against radius into `files` (PNG, SVG or PDF by ending); the band is its lower bound."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel="l2 radius (pixel units of [0, 1])", ylabel="certified accuracy (%)",
                                  ylim=(0, 100), title=title)
        for number, curve in enumerate(curves):
            colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
            axes.step(curve.radius, 100 * curve.accuracy, where="pre", color=colour, linestyle=line, label=curve.name)
            axes.fill_between(curve.radius, 100 * curve.lower, 100 * curve.accuracy, step="pre", color=colour,
                              alpha=0.2, linewidth=0)
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
        for file in files:
            make_folder(file.parent)
            kind = file.suffix.lstrip(".").lower()
            metadata = {"Date": None} if kind == "svg" else None
            write_whole(file, lambda temporary, k=kind, m=metadata: figure.savefig(temporary, format=k, metadata=m))
