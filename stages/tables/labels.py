"""Files with the labels of messages: ids and labels as text, with the place of each row."""

from __future__ import annotations

from pathlib import Path

from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from stages.tables.detect import Expected
from stages.tables.training import Read, read_training

WANTED = {"id": "expected id and label", "label": "expected id and label"}


def read_labelled(path: Path) -> Read:
    """The columns id and label of a file in any format; raises UserError, with the row, for a malformed row."""
    if not regular_file(path):
        raise UserError(f"{path}: expected an existing file (csv, json, parquet or xlsx) with the columns id and label")
    return read_training(str(path), Expected(wanted=WANTED, setting=""))
