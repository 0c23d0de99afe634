"""How the test set came about, for `data/ingest.json`: rule, crossing rows, and class shares of training and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ballast.data.expected_shares import same_shares
from stages.store.data_sections import Ingest
from stages.store.splits import units_of

# How often the class shares of two samples of one population are reported as different.
FALSE_ALARM = 0.01


def split_summary(table: pa.Table, settings: Ingest, crossed: Mapping[str, int]) -> dict[str, Any]:
    """The rule with its columns, the rows that cross splits, and whether the class shares of training and test differ.

    crossed : of `crossings`, before `ingest.drop_crossing`.
    """
    units = units_of(table)
    united = {} if settings.group_column is None else {"units": len(np.unique(units)), "largest_unit": largest(units)}
    return {
        "rule": settings.split,
        "source": source_of(settings),
        "group_column": settings.group_column,
        "folds": None if settings.folds is None else settings.folds.model_dump(),
        **united,
        "crossing": {**crossed, "dropped": settings.drop_crossing},
        **shares_of_splits(table, units),
    }


def largest(units: np.ndarray) -> int:
    """Messages of the largest unit."""
    return int(np.unique(units, return_counts=True)[1].max())


def source_of(settings: Ingest) -> str | None:
    """Where an official split or the times come from; None for a split that is drawn at random."""
    if settings.split == "time":
        return f"column {settings.time_column}"
    if settings.split != "column":
        return None
    if settings.split_column is not None:
        return f"column {settings.split_column}"
    return "separate files" if settings.split_files is not None else "splits of the hub data set"


def shares_of_splits(table: pa.Table, units: np.ndarray) -> dict[str, Any]:
    """Class shares of training and test, and a test of their difference, in which a unit counts once in each class."""
    frame = table.select(["label", "split"]).to_pandas().assign(unit=units)
    prior = frame.groupby("split")["label"].value_counts(normalize=True).unstack(fill_value=0.0)
    counts = frame.drop_duplicates().groupby("split")["label"].value_counts().unstack(fill_value=0)
    tested = same_shares(counts.loc["train"].to_numpy(), counts.loc["test"].to_numpy())
    return {
        "prior": {split: prior.loc[split].to_dict() for split in ("train", "test")},
        "differs": tested.p < FALSE_ALARM,
        "shares_test": {"name": tested.name, "p": tested.p, "false_alarm": FALSE_ALARM},
    }
