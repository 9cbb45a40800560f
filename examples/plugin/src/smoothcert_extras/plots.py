"""A picture of the quartiles of the certified radius."""

import numpy as np
from matplotlib.figure import Figure


def quartiles(runs):
    """Draw a box for the radii of each run."""
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.boxplot([np.asarray(run.radius) for run in runs])
    axes.set_xticks(range(1, len(runs) + 1), [run.name for run in runs])
    axes.set_ylabel("certified radius")
    return figure
