"""Settings of Sphinx; `make docs` builds the manual with them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs.generate import fill_page  # noqa: E402

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
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app: object) -> None:
    """Fill the generated blocks of each page when Sphinx reads it."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, fill_page(source[0], ROOT)))  # type: ignore[attr-defined]
