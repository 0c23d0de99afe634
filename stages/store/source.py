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
from stages.store.data_sections import Ingest
from stages.store.ids import first_wrong_id
from stages.store.tables import read_file, read_hub, read_sms


def read_source(settings: Ingest) -> tuple[pa.Table, str]:
    """The rows of the source as id, text and label, and the place that served them."""
    wanted = {"text_column": settings.text_column, "label_column": settings.label_column}
    if settings.id_column is not None:
        wanted["id_column"] = settings.id_column
    if settings.source == "sms_spam":
        path, served_by = sms_spam.obtain(Path(settings.path))
        table, wanted = read_sms(path), {"text_column": "text", "label_column": "label"}
    elif settings.source == "hub":
        if settings.hub.name is None:
            raise UserError("params.yaml: ingest.source hub needs ingest.hub.name, such as ucirvine/sms_spam")
        table, served_by = read_hub(**settings.hub.model_dump(), wanted=wanted), f"hub data set {public_url(settings.hub.name)}"
    else:
        table = read_file(settings.path, settings.source, wanted, settings.sha256)
        served_by = f"file {public_url(settings.path)}"
    if len(table) == 0:
        raise UserError(f"{served_by}: no rows; expected messages with the columns {', '.join(wanted.values())}")
    columns = {key.removesuffix("_column"): as_strings(table[name], name, served_by) for key, name in wanted.items()}
    ids = columns.get("id", pa.chunked_array([pc.cast(pa.array(np.arange(1, len(table) + 1)), pa.large_string())]))
    if "id" in columns:
        where = f"the column {settings.id_column!r} (ingest.id_column)"
        if wrong := first_wrong_id(table[wanted["id_column"]]) or first_blank(ids):
            row, reason = wrong
            raise UserError(f"{served_by}: row {row + 1} has no id in {where}: {reason}")
        if rows := first_repeat(ids):
            raise UserError(
                f"{served_by}: rows {rows[0] + 1} and {rows[1] + 1} both have the id {short(ids[rows[0]].as_py())!r}"
                f" in {where}; expected an id that names one row"
            )
    return pa.table({"id": ids, "text": columns["text"], "label": columns["label"]}), served_by


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
