"""Cards: one file for each entry of `techniques`, so that a change of one entry reruns only that entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ballast.exceptions import UserError
from ballast.technique import Technique
from ballast.techniques import build
from stages.store.files import read_json
from stages.store.project import PROJECT, Project
from stages.store.values import entry_name


@dataclass(frozen=True, kw_only=True)
class Card:
    """An entry of `techniques`: its name, its technique, its parameters, and the sha256 of the sources that it uses."""

    name: str
    technique: str
    parameters: Mapping[str, Any]
    sources: Mapping[str, str]

    def build(self, counts: np.ndarray, labels: list[str]) -> Technique:
        """The technique for a training split with counts (K,) and K label names."""
        return build(self.technique, counts, labels, self.parameters)

    def as_json(self) -> dict[str, Any]:
        """The card as plain values."""
        return asdict(self)


def card_path(name: str, project: Project = PROJECT) -> Path:
    """The path of an entry's card."""
    return project.cards / f"{entry_name(name)}.json"


def read_card(name: str, project: Project = PROJECT) -> Card:
    """Read the card of an entry; raises UserError."""
    try:
        return Card(**read_json(card_path(name, project)))
    except TypeError as error:
        raise UserError(f"{card_path(name, project)}: not the card of an entry; run `dvc repro`") from error
