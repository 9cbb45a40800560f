"""benchmarks/RESULTS.md: one section a benchmark, each with the figures that the goals are compared with.

A section lies between marker comments, so that a run of some benchmarks leaves the others' sections alone.
"""

import json
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from smoothcert.store.provenance import machine_line

RESULTS = Path(__file__).parent / "RESULTS.md"
_SECTION = re.compile(r"<!-- section (\w+) (\{.*?\}) -->\n(.*?)\n<!-- end \1 -->", re.DOTALL)


@dataclass(frozen=True)
class Section:
    """A benchmark's Markdown, and its figures by name."""

    text: str
    figures: dict[str, float]


def section(title: str, lines: list[str], figures: dict[str, float], machine: str | None = None) -> Section:
    """A section with its title, date and machine."""
    head = [f"## {title}", "", f"{date.today().isoformat()}, {machine or machine_line()}.", ""]
    return Section("\n".join(head + lines), figures)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table, and an empty one."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]


def read_sections(path: Path = RESULTS) -> dict[str, Section]:
    """The sections of a page by name, in their order."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {name: Section(body, json.loads(figures)) for name, figures, body in _SECTION.findall(text)}


def write_page(opening: str, sections: dict[str, Section], path: Path = RESULTS) -> str:
    """Write the page anew; its text."""
    parts = [opening]
    for name, content in sections.items():
        figures = json.dumps({key: float(f"{value:.4g}") for key, value in content.figures.items()})
        parts.append(f"<!-- section {name} {figures} -->\n{content.text.rstrip()}\n<!-- end {name} -->\n")
    text = "\n".join(parts)
    path.write_text(text, encoding="utf-8")
    return text
