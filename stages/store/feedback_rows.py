"""Rows of feedback that join the messages of the source: they are read, get splits and folds, and repeats are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.near_duplicates import near_duplicate_groups
from ballast.data.splitting import NO_FOLD, SPLITS, folds_by_hash, rotation_folds
from ballast.exceptions import UserError, suggestion
from stages.store.checked import read_table
from stages.store.columns import as_strings
from stages.store.data_sections import Ingest
from stages.store.dropping import without_repeats
from stages.store.splits import has_validation, split_codes
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
    """The base rows, then feedback, without texts that occur twice. Columns that feedback lacks are null there."""
    for field in base.schema:
        if field.name not in feedback.column_names:
            feedback = feedback.append_column(field, pa.nulls(len(feedback), field.type))
    table = pa.concat_tables([base, feedback.select(base.column_names)])
    return without_repeats(table, settings, dropped, served_by)


def joined(base: pa.Table, feedback: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The base rows, whose splits and folds stay, then feedback, which gets those of its group.

    A new group stays in or outside the test split; its fold then follows from its fingerprint. Without rotating folds, one of
    them is part of the fixed validation split.
    """
    groups = near_duplicate_groups(feedback["text"])
    count = rotation_folds(settings.fractions.model_dump())
    new = pd.DataFrame(
        {"group": groups, "unit": groups, "split": feedback["split"].to_numpy(), "fold": folds_by_hash(groups, count)}
    )
    new.loc[new["split"] == "test", "fold"] = NO_FOLD
    if has_validation(base):
        new.loc[new["fold"] == 0, "split"] = "validation"
        new["fold"] = NO_FOLD
    new[["split", "fold"]] = new.groupby("group")[["split", "fold"]].transform("first")
    # A group that crosses splits counts as training, because a model has seen it.
    order = np.argsort(split_codes(base), kind="stable")
    existing, first = np.unique(base["group"].to_numpy()[order], return_index=True)
    at = np.minimum(np.searchsorted(existing, groups), len(existing) - 1)
    known = existing[at] == groups
    placed = [name for name in ("group", "unit", "split", "fold") if name in base.column_names]
    for name in placed:
        values = base[name].to_numpy()[order][first]
        new[name] = np.where(known, values[at], new[name].to_numpy())
    fields = [base.schema.field(name) for name in placed]
    for field in fields:
        values = pa.array(new[field.name], field.type)
        feedback = feedback.drop_columns([field.name] if field.name in feedback.column_names else []).append_column(
            field, values
        )
    return concatenated(base, feedback, settings, dropped, served_by)
