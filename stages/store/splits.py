"""Divide the messages into splits and folds, as the settings of ingest state it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.class_sizes import check_class_sizes
from ballast.data.near_duplicates import near_duplicate_groups
from ballast.data.splitting import (
    NO_FOLD,
    SPLITS,
    nested_subsample,
    rotation_folds,
    stratified_grouped_folds,
    stratified_grouped_test,
)
from ballast.data.units import crossing, split_by_time, united
from ballast.exceptions import UserError, short, suggestion
from stages.store.data_sections import FIXED_SPLITS, Ingest
from stages.store.dropping import drop
from stages.store.times import parsed_times
from stages.tables.training import place_of

FEWER_FOLDS = "a larger share of validation in ingest.fractions makes fewer folds"
MERGE = "or join small classes with ingest.label_map, or remove their rows"
# Classes that an error lists by name.
LISTED = 10


def with_fixed_splits(table: pa.Table, settings: Ingest, served_by: str) -> tuple[pa.Table, dict[str, Any]]:
    """The rows with a column `split` if the data determines it, without the column that it comes from.

    Also returns where validation and test begin, for a split by time.
    """
    if settings.time_column is not None:
        times = parsed_times(table["time_column"], settings.time_column, partial(place_of, table, served_by=served_by))
        if (count := len(np.unique(times))) < len(SPLITS):
            raise UserError(
                f"{served_by}: the column {settings.time_column!r} (ingest.time_column) has {count} different times; a split by"
                f" time needs at least {len(SPLITS)}"
            )
        codes = split_by_time(times, settings.fractions.validation, settings.fractions.test)
        first = {split: int(np.where(codes == SPLITS.index(split), times, times.max()).argmin()) for split in SPLITS[1:]}
        begins = {split: str(table["time_column"][row].as_py()).strip() for split, row in first.items()}
        splits = pa.array(SPLITS, pa.large_string()).take(pa.array(codes))
        return table.drop_columns(["time_column"]).append_column("split", splits), {"begins": begins}
    if settings.split_column is not None:
        splits = official(table["split_column"], settings, partial(place_of, table, served_by=served_by))
        return table.drop_columns(["split_column"]).append_column("split", splits), {}
    return table, {}


def official(column: pa.ChunkedArray, settings: Ingest, where: Callable[[int], str]) -> pa.ChunkedArray:
    """The splits (n,) that `ingest.split_column` names, after `ingest.split_map`; raises UserError, with the row."""
    mapping: dict[str, str] = {**settings.split_map} if settings.split_map else {split: split for split in SPLITS}
    values = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    at = pc.index_in(values, pa.array(list(mapping), pa.large_string()))
    row = pc.index(pc.is_null(at), True).as_py()
    of_column = f"in the column {settings.split_column!r} (ingest.split_column)"
    if row >= 0:
        value = values[row].as_py()
        advice = "" if settings.split_map else "; ingest.split_map renames values, such as {dev: validation}"
        raise UserError(
            f"{where(row)} has {f'the split {short(value)!r}' if value else 'no split'} {of_column}:"
            f" {suggestion(value, mapping)}{advice}"
        )
    splits = pa.chunked_array([pa.array(list(mapping.values()), pa.large_string()).take(at.combine_chunks())])
    for split in ("train", "test"):
        if pc.index(splits, split).as_py() < 0:
            raise UserError(f"no message of the split {split} {of_column}; expected train, test and optionally validation")
    return splits


def with_units(table: pa.Table, settings: Ingest) -> pa.Table:
    """The rows with the near-duplicate `group` of each and, with `ingest.group_column`, the `unit` that unites both."""
    groups = near_duplicate_groups(table["text"])
    table = table.append_column("group", pa.array(groups))
    if settings.group_column is None:
        return table
    keys = pc.utf8_trim_whitespace(table["group_column"])
    keys = pc.if_else(pc.equal(keys, ""), None, keys)
    table = table.drop_columns(["group_column"])
    return table.append_column("unit", pa.array(united(groups, keys.to_pandas().to_numpy(dtype=object))))


def units_of(table: pa.Table) -> np.ndarray:
    """The units (n,) of independent messages: united with the group column, or the groups of near duplicates."""
    units: np.ndarray = table["unit" if "unit" in table.column_names else "group"].to_numpy()
    return units


def with_splits(table: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> tuple[pa.Table, dict[str, int]]:
    """The table with group, split and fold, and the number of rows that cross splits.

    It has the share `ingest.train_share` of the units of training. Raises UserError for a single class, and for a
    class that is too small to split.
    """
    table = with_units(table, settings)
    labels, units, names = splittable(table, settings)
    if len(names) < 2:
        raise UserError(f"{served_by}: a single class ({names[0] if names else 'none'}) is left; expected at least two")
    if settings.split in FIXED_SPLITS:
        crossed = crossings(table)
        if settings.drop_crossing:
            dropped["crosses_splits"] = 0
            table = drop(table, crossing(units_of(table), split_codes(table)), "crosses_splits", dropped)
        check_every_split(table, names, served_by)
    else:
        test = in_test(labels, units, names, settings, served_by)
        table = table.append_column("split", pa.array(np.where(test, "test", "train"), pa.large_string()))
        crossed = crossings(table)
    count = 0 if has_validation(table) else rotation_folds(settings.fractions.model_dump())
    if settings.train_share < 1:
        dropped["beyond_train_share"] = 0
        table = drop(table, beyond_share(table, settings, max(1, count)), "beyond_train_share", dropped)
    return with_folds(table, settings, count, served_by), crossed


def crossings(table: pa.Table) -> dict[str, int]:
    """Rows whose unit is also in a later split, the number of such units, and the test rows in them."""
    units, codes = units_of(table), split_codes(table)
    late = crossing(units, codes)
    shared = np.unique(units[late])
    return {
        "rows": int(late.sum()),
        "groups": len(shared),
        "test_rows": int(np.isin(units[codes == SPLITS.index("test")], shared).sum()),
    }


def beyond_share(table: pa.Table, settings: Ingest, least: int) -> np.ndarray:
    """Whether each row (n,) is a training message beyond the share `ingest.train_share` of the units."""
    labels, units, names = splittable(table, settings)
    train = pc.equal(table["split"], "train").to_numpy()
    beyond = train.copy()
    beyond[train] = ~nested_subsample(labels[train], units[train], settings.train_share, settings.seed, names, least=least)
    return beyond


def with_folds(table: pa.Table, settings: Ingest, count: int, served_by: str) -> pa.Table:
    """The table with `fold`: that of `count` for training messages, and no fold for the others or if the count is 0."""
    folds = np.full(len(table), NO_FOLD, dtype=np.int16)
    if count:
        labels, units, names = splittable(table, settings)
        train = pc.equal(table["split"], "train").to_numpy()
        try:
            folds[train] = stratified_grouped_folds(labels[train], units[train], count, settings.seed, names)
        except UserError as error:
            raise UserError(f"{served_by}: outside the test split, {error}; {FEWER_FOLDS}") from error
    return table.append_column("fold", pa.array(folds))


def has_validation(table: pa.Table) -> bool:
    """Whether the validation split is fixed, so that no folds rotate."""
    return bool(pc.index(table["split"], "validation").as_py() >= 0)


def split_codes(table: pa.Table) -> np.ndarray:
    """The position (n,) in SPLITS of the split of each row."""
    codes: np.ndarray = pc.index_in(table["split"], pa.array(SPLITS, pa.large_string())).to_numpy()
    return codes


def check_every_split(table: pa.Table, names: list[str], served_by: str) -> None:
    """Raise UserError for classes without a message in a split that the data determines."""
    for split in SPLITS if has_validation(table) else ("train", "test"):
        present = set(pc.unique(table.filter(pc.equal(table["split"], split))["label"]).to_pylist())
        missing = [name for name in names if name not in present]
        if missing:
            listed = ", ".join(short(name) for name in missing[:LISTED])
            more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
            raise UserError(
                f"{served_by}: no message in the {split} split of {listed}{more}; expected messages of every class in every"
                " split; change the split, or leave these classes out"
            )


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
    units = np.arange(len(table)) if settings.split == "random" else pd.factorize(units_of(table))[0]
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
