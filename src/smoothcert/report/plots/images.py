"""Pictures of images: galleries, panels under noise, sizes, decision regions; each an array -> figure function."""

from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from smoothcert.report.plots.style import COLOURS, INK, new_figure, styled
from smoothcert.results.gallery import Gallery
from smoothcert.results.panels import Panels, Resolution
from smoothcert.results.regions import Regions
from smoothcert.stats import ABSTAIN

_COLUMNS = 6
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo")


@styled
def draw_gallery(data: Gallery) -> Figure:
    """Each image beside a noisy copy, with its answer and radius; a red dashed frame marks a wrong answer."""
    count = len(data.clean)
    rows = -(-count // _COLUMNS)
    figure = new_figure(1.9 * min(count, _COLUMNS), 1.28 * rows + 0.4)
    cells: Any = figure.subplots(rows, min(count, _COLUMNS), squeeze=False)
    for k, axes in enumerate(cells.flat):
        axes.axis("off")
        if k >= count:
            continue
        gap = np.ones((*data.clean.shape[1:3], max(1, data.clean.shape[3] // 14)), dtype=np.float32)
        show_image(axes, np.concatenate([data.clean[k], gap, data.noisy[k]], axis=2))
        wrong = data.prediction[k] not in (data.label[k], ABSTAIN)
        axes.set_title(_short(data.words(k)), fontsize=7, pad=3, color=COLOURS[1] if wrong else INK,
                       fontweight="bold" if wrong else "normal")
        if wrong:
            axes.add_patch(_frame(axes))
    return figure


@styled
def draw_panels(data: Panels) -> Figure:
    """An image, and the same under noise of each sigma."""
    figure = new_figure(1.6 * (len(data.sigma) + 1), 1.9)
    cells: Any = figure.subplots(1, len(data.sigma) + 1)
    words = ["as it is", *(f"sigma {sigma:g}" for sigma in data.sigma)]
    for axes, image, title in zip(cells, [data.image, *data.noisy], words, strict=True):
        show_image(axes, image)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    return figure


@styled
def draw_resolution(data: Resolution) -> Figure:
    """A column a size: the clean image, the noisy one, and the noisy one average-pooled to the smallest size."""
    figure = new_figure(2.0 * len(data.clean) + 0.4, 6.3)
    cells: Any = figure.subplots(3, len(data.clean), squeeze=False)
    for column, side in enumerate(data.side):
        kinds = ((data.clean[column], f"{side} pixels"), (data.noisy[column], f"noise sigma {data.sigma:g}"),
                 (data.pooled[column], f"pooled: sigma {data.residual[column]:.3g} left"))
        for axes, (image, title) in zip(cells[:, column], kinds, strict=True):
            show_image(axes, image)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
    return figure


@styled
def draw_regions(data: Regions, names: tuple[str, ...] = (), radius: float = 0.0) -> Figure:
    """The classes on a plane through an image, with its certified radius, beside the votes of its noisy copies."""
    figure = new_figure(8.4, 4.4)
    plane, bars = figure.subplots(1, 2, width_ratios=[1.25, 1])
    shown = np.unique(np.concatenate([data.classes.ravel(), np.flatnonzero(data.counts)]))
    shown = shown[np.argsort(-data.counts[shown], kind="stable")]
    place = {int(c): k for k, c in enumerate(shown)}
    ranks = np.vectorize(place.get)(data.classes)
    colours = ListedColormap([_tint(k) for k in range(len(shown))])
    plane.imshow(ranks, origin="lower", extent=(data.offsets[0], data.offsets[-1]) * 2, cmap=colours,
                 norm=BoundaryNorm(np.arange(len(shown) + 1) - 0.5, len(shown)))
    for k in range(1, len(shown)):
        if _HATCHES[k % len(_HATCHES)] and (ranks == k).any():
            plane.contourf(data.offsets, data.offsets, ranks == k, levels=[0.5, 1.5], colors="none",
                           hatches=[_HATCHES[k % len(_HATCHES)]])
    plane.add_patch(Circle((0, 0), data.typical, fill=False, edgecolor=INK, linewidth=1, linestyle=":"))
    if radius > 0:
        plane.add_patch(Circle((0, 0), radius, fill=False, edgecolor=INK, linewidth=1.6))
    plane.plot(0, 0, "+", color=INK, markersize=9)
    plane.grid(visible=False)
    plane.set(xlabel="along u (pixel units)", ylabel="along v (pixel units)",
              title="classes; dotted: typical noise length" + (f"; solid: radius {radius:.3f}" if radius > 0 else ""))
    voted = [c for c in shown if data.counts[c]]
    words = [names[c] if c < len(names) else str(c) for c in voted]
    bars.bar(range(len(voted)), 100 * data.counts[voted] / data.counts.sum(), edgecolor=INK, linewidth=0.6,
             color=[_tint(place[c]) for c in voted], hatch=[_HATCHES[place[c] % len(_HATCHES)] for c in voted])
    bars.set_xticks(range(len(voted)), words, rotation=40 if max(map(len, words)) > 2 else 0)
    bars.set(ylabel="votes (%)", title=f"votes of {data.counts.sum():,} noisy copies", ylim=(0, 100))
    bars.grid(axis="x", visible=False)
    for axes in (plane, bars):
        axes.title.set_fontsize(8.5)
    return figure


def show_image(axes: Any, image: np.ndarray) -> None:
    """An image (C, H, W) with 1 or 3 channels (others: their mean), clipped to [0, 1] for the eye alone."""
    shown = np.clip(image, 0, 1)
    if len(shown) == 3:
        axes.imshow(shown.transpose(1, 2, 0))
    else:
        axes.imshow(shown.mean(axis=0), cmap="gray", vmin=0, vmax=1)


def _frame(axes: Any) -> Any:
    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=COLOURS[1], linewidth=1.8,
                     linestyle="--", clip_on=False)


def _short(words: str, most: int = 30) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _tint(k: int) -> tuple[float, float, float]:
    """The k-th colour, mixed with white so that hatches and circles stay visible on it."""
    r, g, b = (0.45 + 0.55 * channel for channel in to_rgb(COLOURS[k % len(COLOURS)]))
    return r, g, b
