"""The table of messages with class indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.store.checked import read_frame
from stages.store.project import PROJECT, Project


@dataclass(frozen=True, kw_only=True)
class Messages:
    """The table of messages with a column `class`; names are the K labels in the order of the class indices.

    The rows of a split have the row number in the whole table as their index.
    """

    table: pd.DataFrame
    names: list[str]

    @property
    def n_folds(self) -> int:
        """Number of folds that rotate through validation; 0 if the validation split is fixed."""
        return int(self.table["fold"].max()) + 1

    def test(self) -> pd.DataFrame:
        """The rows of the test split."""
        return self.table[self.table["split"] == "test"]

    def validation(self, seed: int) -> pd.DataFrame:
        """The rows that a seed validates on: fold `seed` modulo the number of folds, or the fixed validation split."""
        if not self.n_folds:
            return self.table[self.table["split"] == "validation"]
        return self.table[self.table["fold"] == seed % self.n_folds]

    def train(self, seed: int) -> pd.DataFrame:
        """The rows that a seed trains on: those outside the test split and its validation."""
        if not self.n_folds:
            return self.table[self.table["split"] == "train"]
        return self.table[(self.table["split"] == "train") & (self.table["fold"] != seed % self.n_folds)]

    def counts(self, rows: pd.DataFrame) -> np.ndarray:
        """Messages of each class (K,) among some rows."""
        return np.bincount(rows["class"], minlength=len(self.names))


def read_messages(columns: list[str], project: Project = PROJECT) -> Messages:
    """The given columns of a project's messages, with split, fold and class index."""
    table = read_frame(project.messages, [*columns, "label", "split", "fold"])
    classes, names = pd.factorize(table["label"], sort=True)
    return Messages(table=table.assign(**{"class": classes}), names=[str(name) for name in names])
