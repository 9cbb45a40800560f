"""How objects show themselves at a prompt and in a notebook: in one line, and as a small HTML table."""

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

_LONGEST = 60
_STYLE = "text-align:left"


class Displayed:
    """Shows an object by its facts. A dataclass with this base takes `repr=False`, so as not to write its own."""

    def display_facts(self) -> dict[str, Any]:
        """Return what the object shows of itself, by name: the fields of a dataclass, unless it says otherwise."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)  # type: ignore[arg-type]
                if field.repr}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name.replace(' ', '_')}={shorten(value)}" for name, value in self.display_facts().items())
        return f"{type(self).__name__}({shown})"

    def _repr_html_(self) -> str:
        return html_of_facts(type(self).__name__, self.display_facts())


def shorten(value: Any) -> str:
    """Return the repr of a value, cut in its middle where it is long.

    >>> shorten(0.1 + 0.2), shorten("a" * 80)[:5]
    ('0.3', "'aaaa")
    """
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST // 2]} ... {text[-_LONGEST // 4:]}"


def html_of_facts(title: str, facts: Mapping[str, Any]) -> str:
    """Return a table of facts for a notebook, under a title.

    >>> "&lt;a&gt;" in html_of_facts("Run", {"of": "<a>"})
    True
    """
    rows = "".join(f'<tr><th style="{_STYLE}">{html.escape(name)}</th><td style="{_STYLE}">'
                   f"{html.escape(value if isinstance(value, str) else shorten(value))}</td></tr>"
                   for name, value in facts.items())
    return f"<table><caption style=\"{_STYLE}\"><b>{html.escape(title)}</b></caption><tbody>{rows}</tbody></table>"
