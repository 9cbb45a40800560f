"""The directive `notebook`: a page shows a Jupyter notebook with the outputs that are stored in it."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Notebook(SphinxDirective):
    """Show the notebook whose path, relative to the documentation, is the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, self.arguments[0]).resolve()
        self.env.note_dependency(str(path))
        found: list[nodes.Node] = []
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                found += self._text(source, str(path))
                continue
            block = nodes.literal_block(source, source, language="python")
            found.append(block)
            found += [node for output in cell["outputs"] if (node := _output(output.get("data", {})))]
        return found

    def _text(self, source: str, path: str) -> list[nodes.Node]:
        """Return a cell of text; its headings are rubrics, since a page's sections cannot begin within a directive."""
        lines, found = source.splitlines(), list[nodes.Node]()
        while lines and lines[0].startswith("#"):
            marks, _, title = lines.pop(0).partition(" ")
            found.append(nodes.rubric(title, title, **{"heading-level": len(marks) + 1}))
        container = nodes.container()
        self.state.nested_parse(StringList(lines, path), 0, container)
        return [*found, *container.children]


def _output(data: dict[str, Any]) -> nodes.Node | None:
    """Return the node of an output: its picture, else its HTML, else its text."""
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        return nodes.raw("", f'<p><img alt="the picture of the cell above" style="max-width:100%" '
                             f'src="data:image/png;base64,{picture}"></p>', format="html")
    if "text/html" in data:
        return nodes.raw("", f'<div style="overflow-x:auto">{"".join(data["text/html"])}</div>', format="html")
    text = "".join(data.get("text/plain", ""))
    return nodes.literal_block(text, text, language="text") if text else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("notebook", Notebook)
    return {"parallel_read_safe": True}
