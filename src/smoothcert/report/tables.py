"""Tables, and pages of them: text, Markdown, CSV, LaTeX and HTML, with one escaper for each format."""

import csv
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from smoothcert.checks import check_known


class Markup(str):
    """Text that is HTML already; all other text, such as names that users chose, is escaped."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """Return an element; children that are not Markup are escaped, and so are attributes.

    A trailing underscore is dropped from an attribute's name, others become dashes; None and False leave it out.

    >>> element("p", "a < b", element("b", 1), class_="x")
    '<p class="x">a &lt; b<b>1</b></p>'
    """
    shown = "".join(f' {name.rstrip("_").replace("_", "-")}="{html.escape(str("" if value is True else value))}"'
                    for name, value in attributes.items() if value is not None and value is not False)
    if tag in ("br", "img", "input", "meta"):
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join_parts(*children)}</{tag}>")


def join_parts(*parts: Any) -> Markup:
    """Return parts one after the other, escaped where they are not Markup."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts))


def embed(content: Any) -> Markup:
    """Return JSON for a script element: no character in it can end the element or start a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def round_down(values: Any, digits: int = 6) -> list[float]:
    """Return numbers cut to `digits` decimals, never up, so that they take little room and claim no more."""
    scale = 10.0**digits
    return [math.floor(float(value) * scale) / scale for value in values]


_LATEX = {**{character: "\\" + character for character in "&%$#_{}"}, "\\": r"\textbackslash{}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}


def escape_latex(text: str) -> str:
    """Return text as LaTeX shows it; ">=" becomes the sign.

    >>> escape_latex("a_1 >= 50%")
    'a\\\\_1 $\\\\ge$ 50\\\\%'
    """
    return r"$\ge$".join("".join(_LATEX.get(character, character) for character in part) for part in text.split(">="))


def escape_markdown(text: str) -> str:
    """Return text that stays in one cell of a Markdown table."""
    return text.replace("|", r"\|")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: as people read it.
        value: what stands behind it: CSV has it instead, and HTML tables sort by it.
        best: whether it is to be marked as the best: by a star in text, bold in Markdown and LaTeX.
    """

    text: str
    value: Any = None
    best: bool = False


Row = Sequence[str | Cell]
"""A row as it is given to `Table.of`."""


_ALIGNED = {True: "text-align:left", False: "text-align:right"}


@dataclass(frozen=True)
class Column:
    """The head of a column, and how its cells are shown.

    Attributes:
        left: whether cells stand to the left, as words do.
        latex: the head in LaTeX, where it is not the same.
        starred: whether text leaves room for a star behind each cell.
    """

    head: str
    left: bool = False
    latex: str = ""
    starred: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head, between lines of text.

    Attributes:
        columns: (C,) heads. rows: (R, C) cells, plain text or `Cell`.
        above, below: lines of text; in LaTeX they become comments.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    @classmethod
    def of(cls, heads: Sequence[str | Column], rows: Sequence[Row], above: Sequence[str] = (),
           below: Sequence[str] = (), left: Sequence[int] = (0,)) -> Self:
        """Return a table of heads and cells that may be plain text; the columns `left` are words."""
        columns = [head if isinstance(head, Column) else Column(head, k in left) for k, head in enumerate(heads)]
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        return cls(columns, cells, tuple(above), tuple(below))

    @classmethod
    def of_records(cls, records: Sequence[dict[str, Any]]) -> Self:
        """Return a table of records with the same keys, which become its heads; None is an empty cell."""
        return cls.of(list(records[0]), [[Cell("" if value is None else str(value), value) for value in one.values()]
                                         for one in records])

    def to_text(self) -> str:
        """Return cells in columns, for a terminal."""
        shown = [[f"{column.head} " if column.starred else column.head for column in self.columns]]
        shown += [[cell.text + ("*" if cell.best else " ") * column.starred
                   for cell, column in zip(row, self.columns, strict=True)] for row in self.rows]
        widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
        lines = ["  ".join(cell.ljust(width) if column.left else cell.rjust(width)
                           for cell, width, column in zip(row, widths, self.columns, strict=True)).rstrip()
                 for row in shown]
        return "\n".join([*self.above, *lines, *self.below])

    def to_markdown(self) -> str:
        """Return a pipe table."""
        shown = [[escape_markdown(column.head) for column in self.columns], ["---"] * len(self.columns)]
        shown += [[f"**{escape_markdown(cell.text)}**" if cell.best else escape_markdown(cell.text) for cell in row]
                  for row in self.rows]
        lines = [f"| {' | '.join(row)} |" for row in shown]
        lines[1] = f"|{'|'.join(shown[1])}|"
        return "\n".join([*(f"{line}\n" for line in self.above), *lines, *(["", *self.below] if self.below else [])])

    def to_csv(self) -> str:
        """Return the cells' values, in full precision, and the text of those without one."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.head for column in self.columns])
        writer.writerows([cell.text if cell.value is None else cell.value for cell in row] for row in self.rows)
        return out.getvalue().rstrip("\n")

    def to_latex(self) -> str:
        """Return a booktabs table under its lines of text as comments."""
        head = [column.latex or escape_latex(column.head) for column in self.columns]
        body = [[rf"\textbf{{{escape_latex(cell.text)}}}" if cell.best else escape_latex(cell.text) for cell in row]
                for row in self.rows]
        lines = [" & ".join(row) + r" \\" for row in (head, *body)]
        letters = "".join("l" if column.left else "r" for column in self.columns)
        comments = [f"% {line}" for text in (*self.above, *self.below) for line in text.splitlines()]
        return "\n".join([*comments, rf"\begin{{tabular}}{{{letters}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                          r"\bottomrule", r"\end{tabular}"])

    def _repr_html_(self) -> str:
        """Return the table for a notebook, its lines of text around it."""
        heads = element("tr", *(element("th", column.head, style=_ALIGNED[column.left]) for column in self.columns))
        body = [element("tr", *(element("td", element("b", cell.text) if cell.best else cell.text,
                                        style=_ALIGNED[column.left])
                                for cell, column in zip(row, self.columns, strict=True))) for row in self.rows]
        return join_parts(*(element("p", line) for line in self.above),
                          element("table", element("thead", heads), element("tbody", *body)),
                          *(element("p", line) for line in self.below))

    def to_html(self, caption: str) -> Markup:
        """Return a table whose columns sort when their heads are pressed."""
        classes = [None if column.left else "n" for column in self.columns]
        heads = [element("th", element("button", column.head, type="button"), scope="col", class_=number)
                 for column, number in zip(self.columns, classes, strict=True)]
        body = [element("tr", *(element("td", cell.text, data_v=cell.value, class_=number)
                                for cell, number in zip(row, classes, strict=True))) for row in self.rows]
        table = element("table", element("caption", caption), element("thead", element("tr", *heads)),
                        element("tbody", *body), class_="sortable")
        return element("div", table, class_="wide", tabindex="0", role="region", aria_label=caption)


@dataclass(frozen=True, repr=False)
class Page:
    """Tables and paragraphs one below the other; text at a prompt, HTML in a notebook.

    Attributes:
        warning: what a reader has to know first; "" where nothing.
        notes: what a reader has to know of the figures. legend: how to read them.
    """

    blocks: Sequence[Table | str]
    warning: str = ""
    notes: Sequence[str] = ()
    legend: str = ""

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        """Return the page for a notebook."""
        warning = [element("p", element("b", f"Warning: {self.warning}"))] if self.warning else []
        blocks = [element("p", block) if isinstance(block, str) else Markup(block._repr_html_())
                  for block in self.blocks]
        below = [*(f"Note: {note}." for note in self.notes), *([self.legend] if self.legend else [])]
        return join_parts(*warning, *blocks, *(element("p", line) for line in below))

    def to_text(self) -> str:
        """Return the page for a terminal."""
        notes = "\n".join(f"note: {note}" for note in self.notes)
        parts = [f"WARNING: {self.warning}" if self.warning else "",
                 *(block if isinstance(block, str) else block.to_text() for block in self.blocks), notes, self.legend]
        return "\n\n".join(filter(None, parts))

    def to_markdown(self) -> str:
        """Return the page with pipe tables."""
        parts = [f"**Warning: {self.warning}.**" if self.warning else "",
                 *(block if isinstance(block, str) else block.to_markdown() for block in self.blocks),
                 *(f"Note: {note}." for note in self.notes), self.legend]
        return "\n\n".join(filter(None, parts))

    def to_latex(self) -> str:
        """Return the page with booktabs tables; all else becomes comments."""
        lines = [*([f"WARNING: {self.warning}"] if self.warning else []), *self.notes, *self.legend.splitlines()]
        parts = ["\n".join(f"% {line}" for line in block.splitlines()) if isinstance(block, str) else block.to_latex()
                 for block in self.blocks]
        return "\n".join([*(f"% {line}" for line in lines), "\n\n".join(parts)])


FORMATS = ("text", "markdown", "csv", "latex")
"""The formats in which a verb may be asked to print."""


def write(page: Callable[[str], Page], rows: Callable[[], Sequence[dict[str, Any]]], style: str) -> str:
    """Return a page in one of `FORMATS`; CSV is of bare rows in full precision.

    Args:
        page: makes the page for a format, since a terminal has room for more than a column of a paper.
        rows: returns the rows of CSV, which have the same keys.
    """
    check_known("format", style, FORMATS)
    if style == "csv":
        return Table.of_records(rows()).to_csv()
    found = page(style)
    return found.to_text() if style == "text" else found.to_markdown() if style == "markdown" else found.to_latex()
