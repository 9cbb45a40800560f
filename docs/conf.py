"""Sphinx settings of the documentation: `make docs` builds it into build/docs."""

import sys
from pathlib import Path

from smoothcert.version import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "smoothcert"
author = "the smoothcert developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml", "docstrings", "notebook", "options"]
exclude_patterns = ["extensions", "pictures", "static"]
default_role = "code"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4  # so that links to headings work as they do on repository hosts

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"smoothcert {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
