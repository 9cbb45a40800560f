"""Equations as MathML, which browsers draw by themselves: no script, no font, no network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

log = logging.getLogger(__name__)


def markup(node: nodes.Node, display: str) -> str:
    """MathML of an equation; a command that the converter does not know is a warning."""
    made = convert(node.astext(), display=display)
    if "\\" in made:
        log.warning("an equation has a command that cannot be drawn: %s", node.astext(), location=node)
    return made


def visit_inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(markup(node, "inline"))
    raise nodes.SkipNode


def visit_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{markup(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("config-inited", lambda _, config: setattr(config, "html_math_renderer", "mathml"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
