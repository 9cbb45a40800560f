"""HTML that is escaped unless it was made here: whatever users named stays text."""

import html
import json
import math
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element; children that are not Markup are escaped, and so are attributes.

    A trailing underscore is dropped from an attribute's name, others become dashes; None and False leave it out.

    >>> element("p", "a < b", element("b", 1), class_="x")
    '<p class="x">a &lt; b<b>1</b></p>'
    """
    shown = "".join(f' {name.rstrip("_").replace("_", "-")}="{html.escape(str("" if value is True else value))}"'
                    for name, value in attributes.items() if value is not None and value is not False)
    if tag in ("br", "img", "input", "meta"):
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{joined(*children)}</{tag}>")


def joined(*parts: Any) -> Markup:
    """Parts one after the other, escaped where they are not Markup."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts))


def embedded(content: Any) -> Markup:
    """JSON for a script element: no character in it can end the element or start a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def rounded_down(values: Any, digits: int = 6) -> list[float]:
    """Numbers cut to `digits` decimals, never up, so that they take little room and claim no more."""
    scale = 10.0**digits
    return [math.floor(float(value) * scale) / scale for value in values]


def sortable(name: str, head: list[str], rows: list[list[Any]], numeric: set[int]) -> Markup:
    """A table whose columns sort when their heads are pressed; cells are text, or (text, value) to sort by."""
    cells = [element("th", element("button", title, type="button"), scope="col", class_="n" if k in numeric else None)
             for k, title in enumerate(head)]
    body = [element("tr", *(_cell(cell, k in numeric) for k, cell in enumerate(row))) for row in rows]
    table = element("table", element("caption", name), element("thead", element("tr", *cells)),
                    element("tbody", *body), class_="sortable")
    return element("div", table, class_="wide", tabindex="0", role="region", aria_label=name)


def _cell(cell: Any, numeric: bool) -> Markup:
    shown, value = cell if isinstance(cell, tuple) else (cell, None)
    return element("td", shown, data_v=value, class_="n" if numeric else None)
