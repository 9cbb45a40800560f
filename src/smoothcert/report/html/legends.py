"""What the curves of the page are told by: a line for each run, a mark for each attack store."""

from collections.abc import Sequence

from smoothcert.report.html.charts import drawn_attacks
from smoothcert.report.html.markup import Markup, element, joined
from smoothcert.results.attacked import Attack

_MARKS = ("M12.5 5a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M13 1h8v8h-8z", "M17 0l5 5l-5 5l-5 -5z",
          "M17 .5l5 8.5h-10z",
          "M13 2.5l1.5 -1.5l2.5 2.5l2.5 -2.5l1.5 1.5l-2.5 2.5l2.5 2.5l-1.5 1.5l-2.5 -2.5l-2.5 2.5l-1.5 -1.5l2.5 -2.5z")
"""Circle, square, diamond, triangle and cross, in the order in which page.js takes them for attack stores."""


def swatch(k: int) -> Markup:
    """The line of the k-th run."""
    return _small(element("line", x1="0", y1="5", x2="34", y2="5", class_=f"s{k % 7} d{k % 6}"))


def points_legend(attacks: Sequence[Attack], runs: int) -> Markup:
    """Which marks are which attack store's; the first comes after `runs` runs in the order of colours."""
    parts = [joined(_mark(k, runs + k), f"{attack.name} ({attack.images:,} images)")
             for k, attack in enumerate(drawn_attacks(attacks))]
    if not parts:
        return Markup("")
    words = "Only a curve over those same images can be compared with it."
    return element("p", element("small", "Dotted with points, accuracy under attack: ", *(
        joined(part, "; " if k + 1 < len(parts) else ". ") for k, part in enumerate(parts)), words))


def _mark(k: int, colour: int) -> Markup:
    return _small(element("path", d=_MARKS[k % len(_MARKS)], style=f"fill: var(--s{colour % 7})"))


def _small(drawn: Markup) -> Markup:
    return element("svg", drawn, width="34", height="10", aria_hidden="true")
