"""Corrected labels of ingested messages: feedback rows that name a message of the data by its id and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.data.near_duplicates import fingerprints
from ballast.io.printable import printable
from stages.store.files import replaced

COLUMNS = ["id", "text", "label", "suggested", "quality"]
# A spreadsheet runs a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def split_corrections(feedback: pa.Table, base: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of feedback (id, text) that name a message of the data by id and text, and the other rows."""
    base_texts = dict(zip(base["id"].to_pylist(), fingerprints(base["text"]).tolist(), strict=True))
    named = [
        base_texts.get(row_id) == text
        for row_id, text in zip(feedback["id"].to_pylist(), fingerprints(feedback["text"]).tolist(), strict=True)
    ]
    mask = np.array(named, dtype=bool)
    return feedback.filter(pa.array(mask)), feedback.filter(pa.array(~mask))


def relabelled(table: pa.Table, corrections: pa.Table) -> tuple[pa.Table, int]:
    """The table with the label of the last correction of each text, and the number of labels that changed.

    All rows with the text change, so that one text keeps one label.
    """
    if not len(corrections):
        return table, 0
    labels = dict(zip(fingerprints(corrections["text"]).tolist(), corrections["label"].to_pylist(), strict=True))
    before = table["label"].to_pylist()
    after = [labels.get(text, label) for text, label in zip(fingerprints(table["text"]).tolist(), before, strict=True)]
    column = table.column_names.index("label")
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    return table.set_column(column, "label", pa.array(after, table.schema.field("label").type)), changed


def cell(text: str) -> str:
    r"""A text as a cell that a spreadsheet does not run as a formula, without control and invisible characters.

    >>> cell("=1+1"), cell("win a prize"), cell("a\u202eb")
    ("'=1+1", 'win a prize', 'a\\u202eb')
    """
    shown = printable(text, lines=True)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def write_suspects(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write suspected label errors, of the columns COLUMNS, as csv for a spreadsheet."""
    table = pd.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], columns=COLUMNS)
    for name in ("id", "text", "label", "suggested"):
        table[name] = table[name].astype("str").map(cell)
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
