"""One input in a picture: an image, the lines of a series, the bars of a table's row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from smoothcert.report.plots.style import COLOURS, FAINT
from smoothcert.results.views import place_side_by_side, take_slice


def show_inputs(axes: Any, parts: Sequence[np.ndarray], limits: tuple[float, float]) -> None:
    """Show inputs of one shape side by side: images (C, H, W), where other than 3 channels are averaged, series (C, T)
    as a line for each channel, and rows of tables (D,) as bars.

    Args:
        limits: (low, high) of all inputs of the figure (see `view_range`): images are clipped to them.
    """
    low, high = limits
    pieces = [take_slice(part) for part in parts]
    if pieces[0].ndim == 3:
        _show_image(axes, np.clip((place_side_by_side(pieces, high) - low) / (high - low), 0, 1))
        return
    joined, margin = place_side_by_side(pieces, np.nan), 0.04 * (high - low)
    if joined.ndim == 2:
        for channel, values in enumerate(joined):
            axes.plot(values, color=COLOURS[channel % len(COLOURS)], linewidth=0.7)
    else:
        axes.axhline(0, color=FAINT, linewidth=0.6)
        axes.bar(np.arange(len(joined)), joined, color=COLOURS[0], width=0.85)
    axes.set(xlim=(-0.5, joined.shape[-1] - 0.5), ylim=(low - margin, high + margin))


def _show_image(axes: Any, image: np.ndarray) -> None:
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0))
    else:
        axes.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1)
