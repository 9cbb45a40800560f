"""Pictures of a store's images: gallery, panels under noise, sizes, decision regions, and denoised ones."""

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from smoothcert.errors import InputError
from smoothcert.report.plots.drawing import Request
from smoothcert.report.plots.inputs import show_inputs
from smoothcert.report.plots.kinds import (
    ContractionPlot,
    DenoisedPlot,
    FailuresPlot,
    GalleryPlot,
    ImagePlot,
    PanelsPlot,
    ResolutionPlot,
)
from smoothcert.report.plots.style import COLOURS, FAINT, INK, MARKERS, in_style, legend, new_figure
from smoothcert.results.base import check_records
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
from smoothcert.results.gallery import (
    Gallery,
    Panels,
    Regions,
    Resolution,
    cut,
    decision_regions,
    gallery_of,
    noise_panels,
    resolution_study,
)
from smoothcert.results.views import view_range
from smoothcert.stats import ABSTAIN
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store

_COLUMNS, _STRIPS = 6, 4
"""Images side by side: of a gallery, and of strips of an image, its noisy copy and its estimate."""

_CAPTION = 30
"""Characters of the longest caption of a gallery."""

_PANELS = (0.12, 0.25, 0.5, 1.0)
"""Noise levels of panels beside that of the run."""

_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo")


def gather_gallery(request: Request[GalleryPlot]) -> Gallery:
    """Return images of the store, sorted by radius."""
    return gallery_of(request.only[0], request.images, request.options.count)


def gather_panels(request: Request[PanelsPlot]) -> Panels:
    """Return one image of the store under noise of several sigma."""
    store, image, key = one_image(request)
    sigmas = request.options.sigma or sorted({*_PANELS, store.identity.noise.sigma})
    return noise_panels(image, sigmas, store.identity.seed, key)


def gather_resolution(request: Request[ResolutionPlot]) -> Resolution:
    """Return one image of the store at several sizes, under noise of one sigma."""
    store, image, key = one_image(request)
    sigma = request.options.sigma or store.identity.noise.sigma
    return resolution_study(image, sigma, seed=store.identity.seed, key=key)


def gather_regions(request: Request[ImagePlot]) -> Regions:
    """Return the classes around one image of the store, with its certified radius."""
    if request.answers_of is None:
        raise InputError("regions asks the base classifier: give answers_of, a function of the store that gives it")
    store, image, key = one_image(request)
    found = decision_regions(request.answers_of(store), image, noise_of(store), store.num_classes,
                             seed=store.identity.seed, key=key)
    row = np.flatnonzero(store.column("index") == key)
    radius = float(store.column("radius")[row[0]]) if len(row) and _has_radii(store) else 0.0
    return replace(found, radius=radius, class_names=tuple(request.images(store).class_names))


def one_image(request: Request[Any]) -> tuple[Store, np.ndarray, int]:
    """Return the store, the image that is asked for, else the one of the median radius, and its index."""
    store = request.only[0]
    check_records(store)
    index, key = store.column("index"), request.options.image
    if key is None:
        order = np.argsort(store.column("radius"), kind="stable") if _has_radii(store) else np.arange(1)
        key = int(index[order[len(order) // 2]])
    elif key not in index:
        raise InputError(f"image {key} is not among those of {store.folder}, such as {index[0]}")
    return store, request.images(store).batch([key])[0], key


def _has_radii(store: Store) -> bool:
    return "radius" in store.at_hand.column_names


@in_style
def draw_gallery(data: Gallery) -> Figure:
    """Draw each image beside a noisy copy, with its answer and radius; a red dashed frame marks a wrong answer."""
    count = len(data.clean)
    rows = -(-count // _COLUMNS)
    figure = new_figure(1.9 * min(count, _COLUMNS), 1.14 * rows + 0.1)
    cells: Any = figure.subplots(rows, min(count, _COLUMNS), squeeze=False)
    limits = view_range(data.clean, data.noisy)
    for k, axes in enumerate(cells.flat):
        axes.axis("off")
        if k >= count:
            continue
        show_inputs(axes, [data.clean[k], data.noisy[k]], limits)
        wrong = data.prediction[k] not in (data.label[k], ABSTAIN)
        words = data.words(k)
        words = words if len(words) <= _CAPTION else words[:_CAPTION - 1] + "…"
        axes.set_title(words, fontsize=7, pad=3, color=COLOURS[1] if wrong else INK,
                       fontweight="bold" if wrong else "normal")
        if wrong:
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=COLOURS[1],
                                     linewidth=1.8, linestyle="--", clip_on=False))
    return figure


@in_style
def draw_panels(data: Panels) -> Figure:
    """Draw an image, and the same under noise of each sigma."""
    figure = new_figure(1.6 * (len(data.sigma) + 1), 1.9)
    cells: Any = figure.subplots(1, len(data.sigma) + 1)
    words = ["as it is", *(f"sigma {sigma:g}" for sigma in data.sigma)]
    limits = view_range(data.image[None], data.noisy)
    for axes, image, title in zip(cells, [data.image, *data.noisy], words, strict=True):
        show_inputs(axes, [image], limits)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    return figure


@in_style
def draw_resolution(data: Resolution) -> Figure:
    """Draw a column for each size: the clean image, the noisy one, and that average-pooled to the smallest size."""
    figure = new_figure(2.0 * len(data.clean) + 0.4, 6.3)
    cells: Any = figure.subplots(3, len(data.clean), squeeze=False)
    limits = view_range(data.clean[0][None])
    for column, side in enumerate(data.side):
        kinds = ((data.clean[column], f"{side} pixels"), (data.noisy[column], f"noise sigma {data.sigma:g}"),
                 (data.pooled[column], f"pooled: sigma {data.residual[column]:.3g} left"))
        for axes, (image, title) in zip(cells[:, column], kinds, strict=True):
            show_inputs(axes, [image], limits)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
    return figure


@in_style
def draw_regions(data: Regions) -> Figure:
    """Draw the classes on a plane through an image, with its certified radius, and the votes of its noisy copies."""
    names, radius = data.class_names, data.radius
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
    plane.set(xlabel="along u (units of the data)", ylabel="along v (units of the data)",
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


def _tint(k: int) -> tuple[float, float, float]:
    """Return the k-th colour, mixed with white so that hatches and circles stay visible on it."""
    r, g, b = (0.45 + 0.55 * channel for channel in to_rgb(COLOURS[k % len(COLOURS)]))
    return r, g, b


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
    limits = view_range(*(images for _, images in rows))
    for row, (name, images) in zip(cells, rows, strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for k, axes in enumerate(row):
            show_inputs(axes, [images[k]], limits)
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
    rows, columns = max(1, -(-shown // _STRIPS)), max(1, min(shown, _STRIPS))
    parts = [data.clean, data.noisy] + ([data.estimates] if data.estimates is not None else [])
    figure = new_figure(max(4.6, 1.05 * len(parts) * columns), 1.4 * rows + 0.5)
    cells: Any = figure.subplots(rows, columns, squeeze=False)
    limits = view_range(*parts) if shown else (0.0, 1.0)
    for k, axes in enumerate(cells.flat):
        axes.axis("off")
        if k < shown:
            show_inputs(axes, [part[k] for part in parts], limits)
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
                              ylabel="slide ||E x_hat(x + e) - x|| (units of the data, estimate)")
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
