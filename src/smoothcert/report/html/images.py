"""The images of a page: pictures with their answers and radii, and a table of single images."""

import base64
import io
from collections.abc import Sequence

import numpy as np

from smoothcert.report.tables import Cell, Markup, Row, Table, element, join_parts
from smoothcert.results.figures import down
from smoothcert.results.gallery import Gallery
from smoothcert.results.gather import PageRun
from smoothcert.results.views import take_slice, view_range
from smoothcert.store.names import few, group_by_words

LARGEST_SIDE = 96
"""Images of the gallery are shrunk to this many pixels."""

_ROWS = 400


def show_pictures(runs: Sequence[PageRun]) -> Markup:
    """Return the section of pictures of all runs, or why there are none."""
    parts = [_gallery(run.name, run.gallery) for run in runs if run.gallery]
    parts += [element("p", element("strong", few(names)), f": no images shown. {why}", class_="missing")
              for names, why in group_by_words((run.name, run.no_gallery) for run in runs if not run.gallery)]
    return element("section", element("h2", "Images, by radius"), *parts, id="gallery")


def _gallery(name: str, gallery: Gallery) -> Markup:
    origin = ("the first of the noisy copies that bounded its radius" if gallery.drawn else
              "a noisy copy of the same law")
    cards, limits = [], view_range(gallery.clean, gallery.noisy)
    for k, answer in enumerate(gallery.prediction):
        verdict = "abstained" if answer < 0 else "right" if answer == gallery.label[k] else "wrong"
        wrong = " (wrong)" if verdict == "wrong" else ""
        caption = join_parts(
            element("span", f"image {gallery.index[k]:,}"),
            element("span", "label ", element("b", gallery.class_name(gallery.label[k]))),
            element("span", "answer ", element("b", gallery.class_name(answer)), wrong),
            element("span", "radius ", element("b", down(gallery.radius[k], 3) if answer >= 0 else "none")))
        cards.append(element("figure", _draw(gallery.clean[k], f"image {gallery.index[k]}", limits),
                             _draw(gallery.noisy[k], f"image {gallery.index[k]} with noise", limits),
                             element("figcaption", caption), class_=verdict))
    clipped = f", clipped to [{limits[0]:g}, {limits[1]:g}] for the eye alone" if gallery.clean.ndim > 3 else ""
    words = (f"{name}: {len(cards)} of {gallery.of:,} images, evenly spaced in the order of their radius. Each beside "
             f"{origin}{clipped}.")
    show = element("label", "Show ", element("select", *(element("option", word, value=value) for value, word in (
        ("", "all"), ("right", "right"), ("wrong", "wrong"), ("abstained", "abstained"))), class_="filter"))
    return element("div", element("p", words), element("p", show), element("div", *cards, class_="cards"))


def _draw(values: np.ndarray, words: str, limits: tuple[float, float]) -> Markup:
    """Return an input as a picture: an image, the lines of a series, or the bars of a table's row."""
    shares = (take_slice(values).astype(np.float64) - limits[0]) / (limits[1] - limits[0])
    if shares.ndim == 3:
        return _image(shares, words)
    side, high = LARGEST_SIDE, np.round((1 - shares) * (LARGEST_SIDE - 2) + 1, 1)
    across = (np.arange(shares.shape[-1]) + 0.5) * side / shares.shape[-1]
    if shares.ndim == 2:
        drawn = [element("polyline", points=" ".join(f"{x:.1f},{y:g}" for x, y in zip(across, line, strict=True)),
                         class_=f"line s{channel % 2}") for channel, line in enumerate(high)]
    else:
        zero = float(np.clip(1 + limits[0] / (limits[1] - limits[0]), 0, 1) * (side - 2) + 1)
        drawn = [element("rect", x=f"{x - 0.4 * side / len(high):.1f}", y=f"{min(y, zero):.1f}",
                         width=f"{0.8 * side / len(high):.1f}", height=f"{abs(y - zero):.1f}", class_="bar")
                 for x, y in zip(across, high, strict=True)]
    return element("svg", element("title", words), *drawn, viewBox=f"0 0 {side} {side}", width=side, height=side,
                   role="img")


def _image(shares: np.ndarray, words: str) -> Markup:
    """Return an image (C, H, W) as a data URI, clipped to [0, 1], and shrunk where it is large."""
    from PIL import Image

    levels = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    shown = levels.transpose(1, 2, 0) if len(levels) == 3 else np.rint(levels.mean(axis=0)).astype(np.uint8)
    picture = Image.fromarray(shown)
    if (longer := max(picture.size)) > LARGEST_SIDE:
        size = [max(1, round(side * LARGEST_SIDE / longer)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return element("img", src=source, alt=words, width=LARGEST_SIDE, height=LARGEST_SIDE)


def show_single_images(runs: Sequence[PageRun]) -> Markup:
    """Return at most `_ROWS` images of all runs together, evenly spaced in the order of their radius."""
    each = max(1, _ROWS // len(runs))
    rows: list[Row] = []
    for run in runs[:_ROWS]:
        result, answers = run.result, run.store.column("prediction")
        order = np.argsort(-result.radius, kind="stable")
        for i in order[np.unique(np.linspace(0, len(order) - 1, min(each, len(order))).round().astype(int))]:
            verdict = "abstained" if result.abstained[i] else "right" if result.correct[i] else "wrong"
            index, radius = int(result.index[i]), float(result.radius[i])
            label = "?" if result.label is None else result.class_name(int(result.label[i]))
            answer = "none" if result.abstained[i] else result.class_name(int(answers[i]))
            rows.append([run.name, Cell(f"{index:,}", index), label, answer, verdict, Cell(down(radius, 3), radius)])
    total = sum(run.result.images for run in runs)
    table = Table.of(["run", "image", "label", "answer", "verdict", "radius"], rows, left=(0, 2, 3, 4)).to_html(
        f"{len(rows):,} of {total:,} images, evenly spaced by radius")
    return element("section", element("details", element("summary", "Single images"), table), id="images")
