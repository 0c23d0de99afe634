"""Cards: one file for each entry of `techniques`, so that a change of one entry reruns that entry alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast.technique import Technique
from ballast.techniques import build
from stages.files import CARDS, MESSAGES, read_json


@dataclass(frozen=True, kw_only=True)
class Card:
    """An entry of `techniques`: its name, the technique's file, its parameters, sha256 of the sources it uses."""

    name: str
    technique: str
    parameters: Mapping[str, Any]
    sources: Mapping[str, str]

    def build(self, counts: np.ndarray, labels: list[str]) -> Technique:
        """The technique for a training split of counts (K,) and K label names."""
        return build(self.technique, counts, labels, self.parameters)

    def as_json(self) -> dict[str, Any]:
        """Plain values to write."""
        return asdict(self)


def card_path(name: str) -> Path:
    """Where an entry's card is."""
    return CARDS / f"{name}.json"


def read_card(name: str) -> Card:
    """The card of an entry."""
    return Card(**read_json(card_path(name)))


@dataclass(frozen=True, kw_only=True)
class Messages:
    """The table of messages with class indices: names are the K labels, in the order of the indices."""

    table: pd.DataFrame
    names: list[str]

    def of(self, split: str) -> pd.DataFrame:
        """The rows of one split; the index is the row number in the whole table."""
        return self.table[self.table["split"] == split]

    def counts(self, split: str) -> np.ndarray:
        """Messages of each class (K,) in a split."""
        return np.bincount(self.of(split)["class"], minlength=len(self.names))


def read_messages(columns: list[str]) -> Messages:
    """The columns asked for of the messages, with split and class index."""
    table = pd.read_parquet(MESSAGES, columns=[*columns, "label", "split"])
    classes, names = pd.factorize(table["label"], sort=True)
    return Messages(table=table.assign(**{"class": classes}), names=[str(name) for name in names])
