"""Divide the messages into splits and folds, as the settings of ingest state it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.data.class_sizes import check_class_sizes
from ballast.data.near_duplicates import near_duplicate_groups
from ballast.data.splitting import (
    NO_FOLD,
    nested_subsample,
    rotation_folds,
    stratified_grouped_folds,
    stratified_grouped_test,
)
from ballast.exceptions import UserError
from stages.store.data_sections import Ingest
from stages.store.dropping import drop

FEWER_FOLDS = "a larger share of validation in ingest.fractions makes fewer folds"
MERGE = "or join small classes with ingest.label_map, or remove their rows"


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
            check_class_sizes(labels, units, names, count + 1, f"a test split and {count} folds")
            return stratified_grouped_test(labels, units, fractions.test, count, settings.seed, names)
        check_class_sizes(labels, units, names, folds.count, f"{folds.count} folds")
        index: np.ndarray = stratified_grouped_folds(labels, units, folds.count, settings.seed, names)
    except UserError as error:
        where, hint = ("", f"; {FEWER_FOLDS}, {MERGE}") if folds is None else ("ingest.folds: ", "")
        raise UserError(f"{served_by}: {where}{error}{hint}") from error
    return index == folds.index


def splittable(table: pa.Table, settings: Ingest) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Class indices (n,), the units that a split must not separate (n,), and the K names of the classes.

    Units are numbered by first appearance, so that the split does not depend on the values of fingerprints.
    """
    labels, names = pd.factorize(table["label"].to_numpy(), sort=True)
    units = pd.factorize(table["group"].to_numpy())[0] if settings.split == "grouped" else np.arange(len(table))
    return labels, units, [str(name) for name in names]


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
