"""Cards: one file for each entry of `techniques`, so that a change of one entry reruns that entry alone."""

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


def card_path(name: str, project: Project = PROJECT) -> Path:
    """Where an entry's card is."""
    return project.cards / f"{entry_name(name)}.json"


def read_card(name: str, project: Project = PROJECT) -> Card:
    """The card of an entry; raises UserError."""
    try:
        return Card(**read_json(card_path(name, project)))
    except TypeError as error:
        raise UserError(f"{card_path(name, project)}: not the card of an entry; run `dvc repro`") from error
