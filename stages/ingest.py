"""Ingest a named source, a file or URL, or a hub data set as one table of messages with groups, splits and folds.

Reads the source that `ingest` names and `data/feedback.parquet`; writes `data/messages.parquet` and `data/ingest.json`. A row
of feedback with the id and text of an ingested message corrects its label.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ballast.cli import parser
from ballast.data.near_duplicates import fingerprints, near_duplicate_groups
from ballast.data.splitting import (
    NO_FOLD,
    SPLITS,
    folds_by_hash,
    nested_subsample,
    rotation_folds,
    stratified_grouped_folds,
    stratified_grouped_test,
)
from ballast.exceptions import UserError, suggestion
from ballast.io.digest import file_sha256
from ballast.io.printable import counted
from ballast.io.urls import refusal, secrets_in
from stages.store.checked import read_table, write_table
from stages.store.columns import as_strings, check_label_names
from stages.store.data_sections import Ingest
from stages.store.files import replaced, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.relabelled import relabelled, split_corrections
from stages.store.running import run
from stages.store.source import mapped, read_source

# An environment variable that DVC sets for its commands.
DVC_STAGE = "DVC_STAGE"
FEWER_FOLDS = "a larger share of validation in ingest.fractions makes fewer folds"
COLUMNS = ("id", "text", "label", "group", "split", "fold", "source")


def drop(table: pa.Table, doomed: np.ndarray, reason: str, dropped: dict[str, int]) -> pa.Table:
    """The table without the doomed (n,) rows, which are counted by reason."""
    dropped[reason] += int(doomed.sum())
    return table.filter(pa.array(~doomed)) if doomed.any() else table


def without_blanks(table: pa.Table, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table without rows that lack a text or a label; raises UserError if all do."""
    trimmed = {name: pc.utf8_trim_whitespace(table[name]) for name in ("text", "label")}
    blank = {name: pc.fill_null(pc.equal(values, ""), True).to_numpy() for name, values in trimmed.items()}
    for name, rows in blank.items():
        if rows.all():
            raise UserError(f"{served_by}: every {name} is blank")
    table = drop(table, blank["text"], "blank_text", dropped)
    return drop(table, blank["label"][~blank["text"]], "missing_label", dropped)


def conflicts(table: pa.Table, texts: np.ndarray, rule: str, served_by: str) -> np.ndarray:
    """Whether the text of each row (n,) occurs with another label too; raises UserError if the rule is `fail`."""
    labels = pd.factorize(table["label"].to_numpy())[0]
    frame = pd.DataFrame({"text": texts, "label": labels}).groupby("text", sort=False)["label"]
    conflicting: np.ndarray = (frame.transform("min") != frame.transform("max")).to_numpy()
    if rule == "fail" and conflicting.any():
        rows = np.flatnonzero(texts == texts[conflicting.argmax()])
        first, other = rows[0], rows[labels[rows] != labels[rows[0]]][0]
        raise UserError(
            f"{served_by}: the messages with id {table['id'][first].as_py()} and {table['id'][other].as_py()} have the same"
            f" text but the labels {table['label'][first].as_py()!r} and {table['label'][other].as_py()!r};"
            " set ingest.conflicts: drop to drop both"
        )
    return conflicting


def without_repeats(table: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table without texts of two labels and, with `deduplicate`, without exact duplicates except the first."""
    texts = fingerprints(table["text"])
    conflicting = conflicts(table, texts, settings.conflicts, served_by)
    repeated = pd.Series(texts).duplicated().to_numpy() & ~conflicting & settings.deduplicate
    table = drop(table, conflicting, "conflict", dropped)
    return drop(table, repeated[~conflicting], "duplicate", dropped)


def with_splits(table: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table with group, split and fold, and with the share `ingest.train_share` of the groups outside the test split.

    Raises UserError for a single class, and for a class that is too small to split.
    """
    table = table.append_column("group", pa.array(near_duplicate_groups(table["text"])))
    labels, units, names = splittable(table, settings)
    if len(names) < 2:
        raise UserError(f"{served_by}: a single class ({names[0] if names else 'none'}) is left; expected at least two")
    rest = ~in_test(labels, units, names, settings, served_by)
    table = table.append_column("split", pa.array(np.where(rest, "train", "test"), pa.large_string()))
    count = rotation_folds(settings.fractions.model_dump())
    if settings.train_share < 1:
        doomed = rest.copy()
        doomed[rest] = ~nested_subsample(labels[rest], units[rest], settings.train_share, settings.seed, names, least=count)
        dropped["beyond_train_share"] = 0
        table = drop(table, doomed, "beyond_train_share", dropped)
        labels, units, rest = labels[~doomed], units[~doomed], rest[~doomed]
    folds = np.full(len(table), NO_FOLD, dtype=np.int16)
    try:
        folds[rest] = stratified_grouped_folds(labels[rest], units[rest], count, settings.seed, names)
    except UserError as error:
        raise UserError(f"{served_by}: outside the test split, {error}; {FEWER_FOLDS}") from error
    return table.append_column("fold", pa.array(folds))


def in_test(labels: np.ndarray, units: np.ndarray, names: list[str], settings: Ingest, served_by: str) -> np.ndarray:
    """Whether each row (n,) is in the test split: a share of each class, or one of `ingest.folds`."""
    fractions, folds = settings.fractions, settings.folds
    try:
        if folds is None:
            count = rotation_folds(fractions.model_dump())
            return stratified_grouped_test(labels, units, fractions.test, count, settings.seed, names)
        index: np.ndarray = stratified_grouped_folds(labels, units, folds.count, settings.seed, names)
    except UserError as error:
        where, hint = ("", f"; {FEWER_FOLDS}") if folds is None else ("ingest.folds: ", "")
        raise UserError(f"{served_by}: {where}{error}{hint}") from error
    return index == folds.index


def splittable(table: pa.Table, settings: Ingest) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Class indices (n,), the units that a split must not separate (n,), and the K names of the classes.

    Units are numbered by first appearance, so that the split does not depend on the values of fingerprints.
    """
    labels, names = pd.factorize(table["label"].to_numpy(), sort=True)
    units = pd.factorize(table["group"].to_numpy())[0] if settings.split == "grouped" else np.arange(len(table))
    return labels, units, [str(name) for name in names]


def read_feedback_rows(path: Path, labels: pa.Array) -> pa.Table:
    """Columns id, text, label, split and source of the feedback; raises UserError, with the row, for an invalid value.

    The split is test or train, because everything outside the test split rotates through validation.
    """
    allowed = {"id": None, "text": None, "label": labels, "split": pa.array(SPLITS, pa.large_string())}
    # A file from elsewhere has no digest.
    table = read_table(path, list(allowed), required=False)
    columns = {}
    for name, values in allowed.items():
        if name not in table.column_names:
            raise UserError(f"{path}: no column {name!r}; expected {', '.join(allowed)}")
        columns[name] = as_strings(table[name], name, str(path))
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


def counts_by(table: pa.Table, column: str, values: list[Any], labels: list[str]) -> pd.DataFrame:
    """Messages of each label (columns) for each of the values of a column (rows)."""
    counts = table.select(["label", column]).to_pandas().value_counts().unstack("label", fill_value=0)
    return counts.reindex(index=values, columns=labels, fill_value=0)


def check_no_class_is_missing(splits: pd.DataFrame, folds: pd.DataFrame, feedback: Path) -> None:
    """Raise UserError for a class without a message in the test split or in a fold."""
    parts = {"the test split": splits.loc["test"]} | {f"fold {fold}": folds.loc[fold] for fold in folds.index}
    for part, counts in parts.items():
        if (counts == 0).any():
            raise UserError(
                f"{feedback}: class {counts.idxmin()!r} has no message left in {part}, because texts of two labels are dropped;"
                " correct the labels there"
            )


def refuse_secrets(settings: Ingest) -> None:
    """Raise UserError for a URL with secrets, because DVC writes the settings into dvc.lock, which git tracks."""
    for key, url in secrets_in({"ingest": settings.model_dump()}).items():
        raise UserError(f"{PROJECT.params}: {refusal(key, url, from_environment=False)}")


def dropped_in_words(dropped: Mapping[str, int]) -> str:
    """How many messages were dropped for each reason, without reasons that dropped none.

    >>> dropped_in_words({"blank_text": 0, "conflict": 2, "duplicate": 1000})
    '2 (conflict), 1,000 (duplicate)'
    """
    counts = [f"{count:,} ({reason.replace('_', ' ')})" for reason, count in dropped.items() if count]
    return ", ".join(counts) or "none"


def main(project: Project = PROJECT) -> None:
    settings = read_params(project.params).ingest
    if DVC_STAGE in os.environ:
        refuse_secrets(settings)
    rows, served_by = read_source(settings)
    print(f"ingest: {len(rows):,} rows from {served_by}", file=sys.stderr)
    table = rows.set_column(2, "label", mapped(rows["label"], settings.label_map, served_by))
    check_label_names(table["label"], served_by)
    dropped = dict.fromkeys(["blank_text", "missing_label", "conflict", "duplicate"], 0)
    table = without_repeats(without_blanks(table, dropped, served_by), settings, dropped, served_by)
    table = table.append_column("source", pa.repeat(settings.source, len(table)))
    labels = pc.unique(table["label"])
    corrections, feedback = split_corrections(read_feedback_rows(project.feedback, labels), table)
    if settings.folds is not None:
        # The folds determine the test split, so that each message, feedback too, is in one of them.
        table = concatenated(table, feedback, settings, dropped, str(project.feedback))
    # After the split, which corrected labels must not move.
    table, changed = relabelled(with_splits(table, settings, dropped, served_by), corrections)
    if settings.folds is None and len(feedback):
        table = joined(table, feedback, settings, dropped, str(project.feedback))
    table = table.select(COLUMNS)
    names = sorted(labels.to_pylist())
    splits = counts_by(table, "split", list(SPLITS), names)
    folds = counts_by(table, "fold", list(range(rotation_folds(settings.fractions.model_dump()))), names)
    check_no_class_is_missing(splits, folds, project.feedback)
    with replaced(project.messages) as temporary:
        write_table(temporary, table, compression="zstd")
    groups = pc.count_distinct(table["group"]).as_py()
    write_json(
        project.ingest,
        {
            "served_by": served_by,
            "rows": len(rows),
            "kept": len(table),
            "dropped": dropped,
            "groups": groups,
            "labels": splits.sum().to_dict(),
            "splits": splits.to_dict("index"),
            "folds": folds.to_dict("records"),
            "feedback": pc.sum(pc.equal(table["source"], "feedback")).as_py(),
            "relabelled": changed,
            "sha256": file_sha256(project.messages),
        },
    )
    kept = f"{counted(len(table), 'message')} in {counted(groups, 'group')} of near duplicates"
    print(f"ingest: {kept}; dropped {dropped_in_words(dropped)}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
