"""HTML that is escaped unless it was made here: whatever users named stays text. It has the one escaper of HTML."""

import html
import json
import math
from typing import Any


class Markup(str):
    """Text that is HTML already."""

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
