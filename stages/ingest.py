"""Ingest a named source, a file or URL, or a hub data set as one table of messages with groups and splits.

Reads the source that `ingest` names and `data/feedback.parquet`; writes `data/messages.parquet` and `data/ingest.json`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ballast.cli import parser
from ballast.data.near_duplicates import fingerprints, near_duplicate_groups
from ballast.data.splitting import SPLITS, nested_subsample, stratified_grouped_fold, stratified_grouped_split
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
from stages.store.running import run
from stages.store.source import mapped, read_source

# An environment variable that DVC sets for its commands.
DVC_STAGE = "DVC_STAGE"


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


def with_splits(table: pa.Table, settings: Ingest, served_by: str) -> pa.Table:
    """The table with group and split; raises UserError for a single class, and for a class that is too small to split."""
    table = table.append_column("group", pa.array(near_duplicate_groups(table["text"])))
    labels, units, names = splittable(table, settings)
    if len(names) < 2:
        raise UserError(f"{served_by}: a single class ({names[0] if names else 'none'}) is left; expected at least two")
    try:
        split = stratified_grouped_split(labels, units, settings.fractions.model_dump(), settings.seed, names)
    except UserError as error:
        raise UserError(f"{served_by}: {error}") from error
    names_of_splits = pa.array(SPLITS, pa.large_string())
    return table.append_column("split", names_of_splits.take(pa.array(split)))


def with_fold(table: pa.Table, settings: Ingest, served_by: str) -> pa.Table:
    """The table split by `ingest.folds`, including feedback: every message is in the test split of one fold."""
    folds = settings.folds
    if folds is None:
        return table
    labels, units, names = splittable(table, settings)
    validation = settings.fractions.validation
    try:
        split = stratified_grouped_fold(labels, units, folds.count, folds.index, validation, settings.seed, names)
    except UserError as error:
        raise UserError(f"{served_by}: ingest.folds: {error}") from error
    names_of_splits = pa.array(SPLITS, pa.large_string())
    return table.set_column(table.column_names.index("split"), "split", names_of_splits.take(pa.array(split)))


def with_train_share(table: pa.Table, settings: Ingest, dropped: dict[str, int]) -> pa.Table:
    """The table with the share `ingest.train_share` of its training groups."""
    if settings.train_share == 1:
        return table
    train = pc.equal(table["split"], "train").to_numpy()
    labels, units, names = splittable(table, settings)
    doomed = train.copy()
    doomed[train] = ~nested_subsample(labels[train], units[train], settings.train_share, settings.seed, names)
    dropped["beyond_train_share"] = 0
    return drop(table, doomed, "beyond_train_share", dropped)


def splittable(table: pa.Table, settings: Ingest) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Class indices (n,), the units that a split must not separate (n,), and the K names of the classes."""
    labels, names = pd.factorize(table["label"].to_numpy(), sort=True)
    units = table["group"].to_numpy() if settings.split == "grouped" else np.arange(len(table))
    return labels, units, [str(name) for name in names]


def read_feedback_rows(path: Path, labels: pa.Array) -> pa.Table:
    """Columns id, text, label and split of the feedback; raises UserError, with the row, for an invalid value."""
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
    return pa.table(columns)


def joined(base: pa.Table, feedback: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The base rows, whose splits stay, then feedback, which gets the split of the first row of its group."""
    feedback = feedback.append_column("source", pa.repeat("feedback", len(feedback)))
    columns = [name for name in base.column_names if name != "group"]
    table = without_repeats(pa.concat_tables([base.select(columns), feedback.select(columns)]), settings, dropped, served_by)
    groups = near_duplicate_groups(table["text"])
    frame = pd.DataFrame({"group": groups, "split": table["split"].to_numpy()})
    of_group = frame.groupby("group")["split"].transform("first")
    split = np.where(pc.equal(table["source"], "feedback"), of_group, frame["split"])
    table = table.set_column(columns.index("split"), "split", pa.array(split, pa.large_string()))
    return table.append_column("group", pa.array(groups)).select(base.column_names)


def split_counts(table: pa.Table, labels: list[str], feedback: Path) -> pd.DataFrame:
    """Messages of each label (columns) in each split (rows); raises UserError for a class that is missing in a split."""
    counts = table.select(["label", "split"]).to_pandas().value_counts().unstack("label", fill_value=0)
    counts = counts.reindex(index=list(SPLITS), columns=labels, fill_value=0)
    for split, label in counts.stack().loc[lambda count: count == 0].index:
        raise UserError(
            f"{feedback}: class {label!r} has no message left in the split {split}, because texts of two labels are"
            " dropped; correct the labels there"
        )
    return counts


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
    table = with_splits(table, settings, served_by)
    table = table.append_column("source", pa.repeat(settings.source, len(table)))
    labels = pc.unique(table["label"])
    if settings.folds is None:
        table = with_train_share(table, settings, dropped)
    feedback = read_feedback_rows(project.feedback, labels)
    if len(feedback):
        table = joined(table, feedback, settings, dropped, str(project.feedback))
    if settings.folds is not None:
        # The folds determine the training split.
        table = with_train_share(with_fold(table, settings, served_by), settings, dropped)
    counts = split_counts(table, sorted(labels.to_pylist()), project.feedback)
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
            "labels": counts.sum().to_dict(),
            "splits": {name: counts.loc[name].to_dict() for name in SPLITS},
            "feedback": pc.sum(pc.equal(table["source"], "feedback")).as_py(),
            "sha256": file_sha256(project.messages),
        },
    )
    kept = f"{counted(len(table), 'message')} in {counted(groups, 'group')} of near duplicates"
    print(f"ingest: {kept}; dropped {dropped_in_words(dropped)}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
