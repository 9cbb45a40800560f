"""`:::{options} package.Class`: a table of a dataclass's fields, their defaults, and what its docstring says."""

import dataclasses
import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

RUN = {"sigma": "noise level; the run's `--sigma`"}


def described(kind: type) -> dict[str, str]:
    """The entries of the docstring's section "Attributes", by name."""
    _, _, section = inspect.getdoc(kind).partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section.partition("\n\n")[0], re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def shown(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "required"
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def rows(kind: type) -> list[str]:
    texts = {**RUN, **described(kind)}
    fields = dataclasses.fields(kind)
    missing = [field.name for field in fields if field.name not in texts]
    if missing:
        raise ExtensionError(f"the docstring of {kind.__qualname__} does not describe {', '.join(missing)}")
    return [f"| `{field.name}` | {shown(field.default)} | {plain(texts[field.name])} |" for field in fields]


def plain(text: str) -> str:
    """Markdown that shows the text as it stands, code spans excepted."""
    return re.sub(r"[|*_<\\]", r"\\\g<0>", text)


class Options(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        return self.parse_text_to_nodes("\n".join(["| option | default | meaning |", "|---|---|---|", *rows(kind)]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("options", Options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
