"""Settings of Sphinx; `make docs` builds the manual with them."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs.generate import fill_page  # noqa: E402
from docs.generate.docstrings import listed_fields  # noqa: E402

project = "Ballast"
author = "The Ballast developers"
project_copyright = author
html_title = "Ballast"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
# Markdown, with headings as targets of links, {directives} in ::: fences, and term lists.
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False
numpydoc_show_class_members = False
# The manual is built offline, so the names of other projects have no target.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["ballast.css"]
html_show_sphinx = False
html_show_copyright = False
# Pages without subpages need no navigation at the left.
html_sidebars = {page: [] for page in ("architecture", "how_we_judge", "speed", "tutorial", "which_technique_helps_when")}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill the generated blocks of a page."""
    source[0] = fill_page(source[0], ROOT)


def read_docstring(app: Sphinx, kind: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Show the fields of small classes as a list."""
    lines[:] = listed_fields(lines)


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring)
