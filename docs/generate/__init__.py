"""What the manual generates from the sources when it is built, so that it cannot fall behind them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docs.generate.speed import speed_tables

# A page names a block in a line of its own; a MyST comment, so that it is invisible wherever it stays.
MARKER = re.compile(r"^% generated: (\w+)$", re.MULTILINE)
BLOCKS: dict[str, Callable[[Path], str]] = {
    "speed": speed_tables,
}


def fill_page(source: str, root: Path) -> str:
    """Replace the markers of a Markdown page by the blocks that they name; raises KeyError for an unknown block."""
    return MARKER.sub(lambda marker: BLOCKS[marker[1]](root), source)
