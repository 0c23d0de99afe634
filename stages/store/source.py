"""Read the source that params.yaml names as one table of labelled messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.blank_text import blank_rows
from ballast.exceptions import UserError, short
from ballast.io.urls import public_url
from stages.store import sms_spam
from stages.store.columns import as_strings
from stages.store.data_sections import COLUMN_KEYS, Ingest, OfSplits
from stages.store.ids import first_wrong_id
from stages.store.tables import read_file, read_hub, read_sms

# Names of the columns by the key that names them in the file; columns of the split keep the name of the key.
NAMES = {"id_column": "id", "text_column": "text", "label_column": "label"}


def read_source(settings: Ingest) -> tuple[pa.Table, str]:
    """The rows of the source as id, text and label, with the columns that the split needs, and the place that served them.

    Columns of the split are text, or `split` if a file or hub split holds each split.
    """
    parts = {split: read_part(of_split) for split, of_split in settings_of_splits(settings).items()}
    tables = [
        table if split is None else table.append_column("split", pa.repeat(pa.scalar(split, pa.large_string()), len(table)))
        for split, (table, _) in parts.items()
    ]
    table = pa.concat_tables(tables)
    served_by = " and ".join(place for _, place in parts.values())
    if "id" not in table.column_names:
        numbers = pc.cast(pa.array(np.arange(1, len(table) + 1)), pa.large_string())
        return table.add_column(0, "id", pa.chunked_array([numbers])), served_by
    ids = table["id"]
    if rows := first_repeat(ids):
        raise UserError(
            f"{served_by}: rows {rows[0] + 1} and {rows[1] + 1} both have the id {short(ids[rows[0]].as_py())!r}"
            f" in the column {settings.id_column!r} (ingest.id_column); expected an id that names one row"
        )
    return table, served_by


def settings_of_splits(settings: Ingest) -> dict[str | None, Ingest]:
    """The settings of the source of each split; those of all messages, by None, if the source holds them together."""
    if settings.split_files is not None:
        folder = settings.path.rstrip("/")
        files = {
            split: {"path": f"{folder}/{name}"} for split, name in settings.split_files.model_dump(exclude_none=True).items()
        }
        return {split: settings.model_copy(update=own) for split, own in files.items()}
    if settings.source == "hub" and isinstance(settings.hub.split, OfSplits):
        hubs = {
            split: settings.hub.model_copy(update={"split": name})
            for split, name in settings.hub.split.model_dump(exclude_none=True).items()
        }
        return {split: settings.model_copy(update={"hub": hub}) for split, hub in hubs.items()}
    return {None: settings}


def read_part(settings: Ingest) -> tuple[pa.Table, str]:
    """The rows of one file or hub split: [id,] text, label and columns of the split as text, and the place that served them."""
    wanted = {key: column for key in COLUMN_KEYS if (column := getattr(settings, key)) is not None}
    if settings.source == "sms_spam":
        path, served_by = sms_spam.obtain(Path(settings.path))
        table, wanted = read_sms(path), {"text_column": "text", "label_column": "label"}
    elif settings.source == "hub":
        if settings.hub.name is None:
            raise UserError("params.yaml: ingest.source hub needs ingest.hub.name, such as ucirvine/sms_spam")
        table, served_by = read_hub(**settings.hub.model_dump(), wanted=wanted), f"hub data set {public_url(settings.hub.name)}"
        if settings.split == "column" and settings.split_column is None:
            served_by += f", split {settings.hub.split}"
    else:
        table = read_file(settings.path, settings.source, wanted, settings.sha256)
        served_by = f"file {public_url(settings.path)}"
    if len(table) == 0:
        raise UserError(f"{served_by}: no rows; expected messages with the columns {', '.join(wanted.values())}")
    if "id_column" in wanted:
        check_ids(table[wanted["id_column"]], wanted["id_column"], served_by)
    columns = {NAMES.get(key, key): as_strings(table[name], name, served_by) for key, name in wanted.items()}
    return pa.table(columns), served_by


def check_ids(column: pa.ChunkedArray, name: str, served_by: str) -> None:
    """Raise UserError, with the row, for a missing or invalid id."""
    if wrong := first_wrong_id(column) or first_blank(as_strings(column, name, served_by)):
        row, reason = wrong
        raise UserError(f"{served_by}: row {row + 1} has no id in the column {name!r} (ingest.id_column): {reason}")


def first_blank(ids: pa.ChunkedArray) -> tuple[int, str] | None:
    """The first row (from 0) of ids (n,) without a value, and the reason; None if there is none."""
    blank = np.flatnonzero(blank_rows(ids))
    return (int(blank[0]), "the id is blank") if len(blank) else None


def first_repeat(ids: pa.ChunkedArray) -> tuple[int, int] | None:
    """The first row (from 0) of ids (n,) whose id an earlier row has, after that row; None if all ids differ."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    row = int(ids.to_pandas().duplicated().to_numpy().argmax())
    return pc.index(ids, ids[row]).as_py(), row
