"""One style for every picture: fonts, line widths, colours with their own dashes and markers; and how files are made.

The colours are those of Okabe & Ito (2008), told apart by colour-blind people; dashes and markers tell them apart in
grey. Names that users chose are never read as mathematics.
"""

import functools
import io
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smoothcert.checks import suggestion
from smoothcert.errors import InputError
from smoothcert.io.files import make_folder, write_whole

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)),
                           (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMED = 24
"""The most series that a legend names."""
INK, FAINT = "#222222", "#8a8a8a"
_SMALL, _WIDTH = 8, 100
"""The size of a warning above a picture, and the characters of its lines."""
STYLE: Any = {
    "font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 10, "figure.titlesize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "legend.frameon": False, "legend.fontsize": 9, "legend.handlelength": 3.2, "image.interpolation": "nearest",
    "text.parse_math": False, "svg.hashsalt": "smoothcert", "svg.fonttype": "none", "pdf.fonttype": 42,
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
"""File endings, and the arguments with which `savefig` leaves dates and versions out of them."""


def look(number: int) -> dict[str, Any]:
    """Return colour and dashes of the k-th series; the same pair comes again only after 42 of them."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def marker(number: int) -> str:
    """Return the marker of the k-th series."""
    return MARKERS[number % len(MARKERS)]


def handle(number: int) -> Line2D:
    """Return the entry of the k-th series in a legend: its line with its marker."""
    return Line2D([], [], marker=marker(number), **look(number))


class Picture(Figure):
    """A figure that a notebook shows, whether or not it has loaded pyplot."""

    def _repr_png_(self) -> bytes:
        return self.to_png()

    def to_png(self) -> bytes:
        """Return the picture as a PNG file."""
        content = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(content, format="png", dpi=100)
        return content.getvalue()


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """Return an empty figure of a size in inches; no window, no global state."""
    figure = Picture(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def open_axes(ax: Axes | None, width: float = 6.4, height: float = 4.0, **settings: Any) -> tuple[Figure, Axes]:
    """Return a new figure of a size in inches with one pair of axes, or `ax` and its figure; and set the axes up."""
    if ax is None:
        figure = new_figure(width, height)
        return figure, figure.add_subplot(**settings)
    ax.set(**settings)
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("ax belongs to no figure: give axes such as those of matplotlib.pyplot.subplots()")
    return figure, ax


def legend(axes: Any, handles: list[Any], names: list[str], **options: Any) -> None:
    """Draw a legend of these names, or of the first `NAMED` of many.

    matplotlib leaves out names that start with "_", so a space goes before them.
    """
    shown = [f" {name}" if name.startswith("_") else name for name in names[:NAMED]]
    if len(names) > NAMED:
        handles, shown = [*handles[:NAMED], Line2D([], [], linestyle="")], [*shown, f"and {len(names) - NAMED:,} more"]
    if names:
        axes.legend(handles, shown, **options)


def in_style(function: Any) -> Any:
    """Make a drawing function use the style of this module, whatever the caller's settings are."""
    @functools.wraps(function)
    def draw(*args: Any, **options: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return function(*args, **options)

    return draw


@in_style
def warn_above(figure: Figure, words: str) -> None:
    """Put a warning above everything that a figure shows, in at most four lines."""
    figure.set_label("\n".join(wrap(words, _WIDTH)[:4]))  # a title may be put above it, once for each file
    figure.suptitle(str(figure.get_label()), fontsize=_SMALL, x=0.01, ha="left")


def check_ending(file: Path) -> str:
    """Return the format that a file's ending asks for; raise InputError for another ending."""
    ending = file.suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise InputError(f"{file.name} must end in {', '.join('.' + name for name in FORMATS)}"
                         f"{suggestion(ending, FORMATS) if ending else ''}")
    return ending


def save(figure: Figure, file: Path, title: str = "") -> None:
    """Write a figure whole, in the format of the file's ending, with a title above it."""
    ending = check_ending(file)
    make_folder(file.parent)
    with mpl.rc_context(STYLE):
        if title and (warning := figure.get_label()):
            figure.suptitle(f"{title}\n{warning}", fontsize=_SMALL, x=0.01, ha="left")
        elif title:
            figure.suptitle(title)
        write_whole(file, lambda temporary: figure.savefig(temporary, format=ending, **FORMATS[ending]))
