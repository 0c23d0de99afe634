"""Rendering of the HTML pages: templates, and the stylesheets and scripts that a page carries in itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.pages.words import capitalize_first, class_name, magnitude, metric_name, number, percent, probability, signed

# The stylesheet and the macros that all pages share, and the script of pages with tables to sort.
HERE = Path(__file__).parent
STYLE, SORT = HERE / "page.css", HERE / "sort.js"


def environment(*folders: Path) -> Environment:
    """Jinja2 environment for the templates of some folders and the shared macros. It escapes every value that it inserts."""
    jinja = Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"percent": percent, "probability": probability, "number": number, "signed": signed}
    jinja.filters |= {"capitalize_first": capitalize_first}
    jinja.filters |= {"magnitude": magnitude, "metric_name": metric_name, "class_name": class_name}
    return jinja


def trusted_source(path: Path) -> Markup:
    """A stylesheet or script of this repository, inserted into a page without escaping."""
    return Markup(path.read_text(encoding="utf-8"))


def script_hash(script: str) -> str:
    """Base64 SHA-256 of a script, as the Content-Security-Policy of a page names it."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
