"""Docstrings in plain words become reStructuredText.

Ours say `x` for code and ||x||_2 for a norm, and set formulas apart by an indent. So backticks become literals, marks
that reStructuredText would read are escaped, and an indented paragraph is shown as it stands. The sections that
napoleon knows (Args, Attributes, Raises, ...) are left to it, doctests to Sphinx.
"""

import re
from collections.abc import Iterator
from typing import Any

from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
CODE = re.compile(r"(`+)(.+?)\1")
ARRAYS = stringify_annotation(ArrayLike, "smart")  # the long union that NumPy's name for it stands for


def words(line: str) -> str:
    """One line with its code spans as literals and all other marks escaped."""
    done, at = "", 0
    for span in CODE.finditer(line):
        done, at = done + escaped(line[at:span.start()]) + f"``{span[2]}``", span.end()
    return done + escaped(line[at:])


def escaped(text: str) -> str:
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", re.sub(r"[\\*|`]", r"\\\g<0>", text))


def restructured(lines: list[str]) -> Iterator[str]:
    section = doctest = literal = prose = False
    before = ""
    for line in lines:
        indented = line.startswith(" ")
        if line.strip():
            section = bool(SECTION.match(line)) or (section and indented)
            doctest = doctest or line.lstrip().startswith(">>> ")
            literal = literal and indented
            if not before.strip():
                prose = not (indented or section or doctest or line.startswith("- "))
                if indented and not (literal or section or doctest):
                    literal = True
                    yield from ("::", "")
        else:
            doctest = False
        if literal or doctest:
            yield line
        else:
            yield words(line.lstrip() if prose else line)
        before = line


def on_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(restructured(lines))
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")  # an escaped line end: else napoleon takes what stands before a colon for a type


def on_signature(app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None,
                 returns: str | None) -> tuple[str | None, str | None]:
    return arguments and arguments.replace(ARRAYS, "ArrayLike"), returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", on_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", on_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
