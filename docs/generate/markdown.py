"""Text in generated Markdown."""

from __future__ import annotations

import re


def literal(text: str) -> str:
    """Text whose signs Markdown does not interpret."""
    return re.sub(r"([\\|<>*_\[\]$`{}])", r"\\\1", text)
