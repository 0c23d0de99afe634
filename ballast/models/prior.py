"""A model that predicts the same class prior for every message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from ballast.models.base import WEIGHTS, Model


@dataclass
class PriorModel(Model):
    """Every message gets the same logits: the log of a class prior (K,)."""

    kind: ClassVar[str] = "prior"
    labels: list[str]
    log_prior: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(self.log_prior.astype(np.float32), (len(texts), 1))

    def save_files(self, folder: Path) -> None:
        save_file({"log_prior": self.log_prior}, folder / WEIGHTS)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> PriorModel:
        return cls(labels=labels, log_prior=load_file(folder / WEIGHTS)["log_prior"])

    @property
    def n_parameters(self) -> int:
        return len(self.log_prior)
