"""What the manual generates from the sources when it is built, so that it cannot fall behind them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docs.generate.api import api_sections
from docs.generate.commands import flow_commands, stage_commands, targets_table
from docs.generate.figure import data_flow
from docs.generate.files import files_tables, stages_table
from docs.generate.params import params_tables
from docs.generate.shelves import shelves_tables
from docs.generate.speed import speed_tables
from docs.generate.techniques import techniques_table

# A page names a block in a line of its own; a MyST comment, so that it is invisible wherever it stays.
MARKER = re.compile(r"^% generated: (\w+)$", re.MULTILINE)
BLOCKS: dict[str, Callable[[Path], str]] = {
    "api": api_sections,
    "data_flow": data_flow,
    "files": files_tables,
    "flow_commands": flow_commands,
    "params": params_tables,
    "shelves": shelves_tables,
    "speed": speed_tables,
    "stage_commands": stage_commands,
    "stages": stages_table,
    "targets": targets_table,
    "techniques": techniques_table,
}


def fill_page(source: str, root: Path) -> str:
    """Replace the markers of a Markdown page by the blocks that they name; raises KeyError for an unknown block."""
    return MARKER.sub(lambda marker: BLOCKS[marker[1]](root), source)
