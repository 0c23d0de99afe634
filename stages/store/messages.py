"""The table of messages with class indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.store.checked import read_frame
from stages.store.project import PROJECT, Project


@dataclass(frozen=True, kw_only=True)
class Messages:
    """The table of messages with a column `class`; names are the K labels in the order of the class indices."""

    table: pd.DataFrame
    names: list[str]

    def of(self, split: str) -> pd.DataFrame:
        """The rows of one split; the index is the row number in the whole table."""
        return self.table[self.table["split"] == split]

    def counts(self, split: str) -> np.ndarray:
        """Messages of each class (K,) in a split."""
        return np.bincount(self.of(split)["class"], minlength=len(self.names))


def read_messages(columns: list[str], project: Project = PROJECT) -> Messages:
    """The given columns of a project's messages, with split and class index."""
    table = read_frame(project.messages, [*columns, "label", "split"])
    classes, names = pd.factorize(table["label"], sort=True)
    return Messages(table=table.assign(**{"class": classes}), names=[str(name) for name in names])
