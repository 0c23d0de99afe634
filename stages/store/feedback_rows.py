"""Rows of feedback that join the messages of the source: they are read, get splits and folds, and repeats are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.near_duplicates import near_duplicate_groups
from ballast.data.splitting import NO_FOLD, SPLITS, folds_by_hash, rotation_folds
from ballast.exceptions import UserError, suggestion
from stages.store.checked import read_table
from stages.store.columns import as_strings
from stages.store.data_sections import Ingest
from stages.store.dropping import without_repeats
from stages.store.training_labels import meant


def read_feedback_rows(path: Path, labels: pa.Array, label_map: Mapping[str, str] | None) -> pa.Table:
    """Columns id, text, label, split and source of the feedback; raises UserError, with the row, for an invalid value.

    A label may also be a value of `ingest.label_map`. The split is test or train, because everything outside the test split
    rotates through validation.
    """
    allowed = {"id": None, "text": None, "label": labels, "split": pa.array(SPLITS, pa.large_string())}
    # A file from elsewhere has no digest.
    table = read_table(path, list(allowed), required=False)
    columns = {}
    for name, values in allowed.items():
        if name not in table.column_names:
            raise UserError(f"{path}: no column {name!r}; expected {', '.join(allowed)}")
        columns[name] = as_strings(table[name], name, str(path))
        if name == "label":
            columns[name] = meant(columns[name], labels.to_pylist(), label_map)
        accepted = pc.is_valid(columns[name]) if values is None else pc.is_in(columns[name], values)
        row = pc.index(accepted, False).as_py()
        if row >= 0:
            expected = "expected text" if values is None else suggestion(str(columns[name][row]), values.to_pylist())
            raise UserError(f"{path}: row {row + 1} has the {name} {columns[name][row].as_py()!r}: {expected}")
    columns["split"] = pc.if_else(pc.equal(columns["split"], "test"), "test", "train").cast(pa.large_string())
    return pa.table(columns).append_column("source", pa.repeat("feedback", len(table)))


def concatenated(base: pa.Table, feedback: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The base rows, then feedback, without texts that occur twice."""
    table = pa.concat_tables([base, feedback.select(base.column_names)])
    return without_repeats(table, settings, dropped, served_by)


def joined(base: pa.Table, feedback: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The base rows, whose splits and folds stay, then feedback, which gets those of the first row of its group.

    A new group stays in or outside the test split; its fold then follows from its fingerprint.
    """
    groups = near_duplicate_groups(feedback["text"])
    folds = folds_by_hash(groups, rotation_folds(settings.fractions.model_dump()))
    folds = np.where(pc.equal(feedback["split"], "test"), NO_FOLD, folds).astype(np.int16)
    feedback = feedback.append_column("group", pa.array(groups)).append_column("fold", pa.array(folds))
    table = concatenated(base, feedback, settings, dropped, served_by)
    frame = table.select(["group", "split", "fold"]).to_pandas()
    of_group = frame.groupby("group")[["split", "fold"]].transform("first")
    fed = pc.equal(table["source"], "feedback").to_numpy()
    frame = frame.mask(np.broadcast_to(fed[:, None], frame.shape), of_group)
    for name in ("split", "fold"):
        column = table.column_names.index(name)
        table = table.set_column(column, name, pa.array(frame[name], table.schema.field(name).type))
    return table
