"""Pictures of denoisers: images denoised, images where one lost, contraction against slide."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothcert.errors import InputError
from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.images import one_image, show_image
from smoothcert.report.plots.kinds import ContractionPlot, DenoisedPlot, FailuresPlot
from smoothcert.report.plots.style import COLOURS, FAINT, MARKERS, in_style, legend, new_figure
from smoothcert.results.denoising import (
    Captioned,
    Contracted,
    Estimates,
    Failures,
    contraction_of,
    denoise_gallery,
    denoise_image,
    failures_of,
)
from smoothcert.results.gallery import cut

_COLUMNS = 4


def gather_denoised(request: Request[DenoisedPlot]) -> Captioned:
    """Return images of the store, or noisy copies of one of them, denoised."""
    how, count = _estimates(request), request.options.count
    if request.options.image is not None:
        store, image, key = one_image(request)
        return denoise_image(store, image, key, how, count)
    return denoise_gallery(request.only[0], request.images, how, count)


def gather_failures(request: Request[FailuresPlot]) -> Failures:
    """Return the images that the first run certifies at a larger radius than the second."""
    first, second = request.opened
    how = request.estimates_of(second[0]) if request.estimates_of else None
    return failures_of(first, second, request.images, how, request.options.count)


def gather_contraction(request: Request[ContractionPlot]) -> Contracted:
    """Return contraction and slide of images of the store."""
    return contraction_of(request.only[0], request.images, _estimates(request), request.options.count,
                          request.options.n)


def _estimates(request: Request[Any]) -> Estimates:
    if request.estimates_of is None:
        raise InputError("this kind of picture shows a denoiser: give estimates_of, a function of the store that "
                         "gives it")
    return request.estimates_of(request.only[0])


@in_style
def draw_denoised(shown: Captioned) -> Figure:
    """Draw a column for each image: as it is, noisy, denoised, after a walk if there is one; squared errors below."""
    data = shown.data
    rows = [("x", data.clean), ("x + e", data.noisy), ("x_hat(x + e)", data.estimates)]
    rows += [("walk or flow", data.walked)] if data.walked is not None else []
    figure = new_figure(0.5 + 1.15 * len(shown.words), 0.5 + 1.32 * len(rows))
    cells: Any = figure.subplots(len(rows), len(shown.words), squeeze=False)
    for row, (name, images) in zip(cells, rows, strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for k, axes in enumerate(row):
            show_image(axes, images[k])
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            if images is not data.clean:
                axes.set_xlabel(f"error {data.error(images)[k]:.4g}", fontsize=7, labelpad=2)
    for axes, words in zip(cells[0], shown.words, strict=True):
        axes.set_title(words, fontsize=7, pad=3)
    figure.supxlabel(f"noise of sigma {data.sigma:g}; error: squared l2 distance to x", fontsize=8)
    return figure


@in_style
def draw_failures(data: Failures) -> Figure:
    """Draw each image beside its noisy copy and, where there is a denoiser, the estimate; with both radii."""
    shown = len(data.index)
    rows, columns = max(1, -(-shown // _COLUMNS)), max(1, min(shown, _COLUMNS))
    parts = [data.clean, data.noisy] + ([data.estimates] if data.estimates is not None else [])
    figure = new_figure(max(4.6, 1.05 * len(parts) * columns), 1.4 * rows + 0.5)
    cells: Any = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(cells.flat):
        axes.axis("off")
        if k < shown:
            gap = np.ones((*data.clean.shape[1:3], max(1, data.clean.shape[3] // 14)), dtype=np.float32)
            strip = [piece for part in parts for piece in (part[k], gap)][:-1]
            show_image(axes, np.concatenate(strip, axis=2))
            axes.set_title(f"{data.words[k]} (image {data.index[k]}): R {cut(data.first[k])} > {cut(data.second[k])}",
                           fontsize=7, pad=3)
    figure.supxlabel(f"{data.count:,} of {data.of:,} images have a larger radius in {data.names[0]} than in "
                     f"{data.names[1]}" + (f"; {shown} shown" if shown < data.count else ""), fontsize=8)
    return figure


@in_style
def draw_contraction(found: Contracted) -> Figure:
    """Draw the contraction ratio of each image against its slide, with a mark for the run's answer."""
    data = found.data
    figure = new_figure(5.2, 4.2)
    axes = figure.add_subplot(xlabel="contraction ||x_hat(x + e) - E x_hat|| / ||e|| (estimate)",
                              ylabel="slide ||E x_hat(x + e) - x|| (pixel units, estimate)")
    kinds = (("right", found.right), ("wrong", ~found.right & ~found.abstained), ("abstained", found.abstained))
    drawn = [(axes.plot(data.contraction[kind], data.slide[kind], MARKERS[k], color=COLOURS[k], alpha=0.6,
                        markeredgewidth=0)[0], f"{name} ({kind.sum()})")
             for k, (name, kind) in enumerate(kinds) if kind.any()]
    for value, line in ((np.median(data.contraction), axes.axvline), (np.median(data.slide), axes.axhline)):
        line(value, color=FAINT, linewidth=0.9, linestyle=":")
    right, top = (1.06 * float(values.max()) or 1.0 for values in (data.contraction, data.slide))
    axes.set(xlim=(0, right), ylim=(0, top))
    axes.set_title(f"{len(data.index):,} images, {data.copies} noisy copies each; sigma {data.sigma:g}, typical ||e|| "
                   f"{data.sigma * np.sqrt(found.dimension):.3g}; dotted: medians", fontsize=8)
    legend(axes, [mark for mark, _ in drawn], [name for _, name in drawn])
    return figure
