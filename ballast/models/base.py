"""What all trained models share, and the simplest of them. Weights are safetensors; nothing is unpickled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

WEIGHTS = "model.safetensors"


class Model(ABC):
    """A classifier of texts into K classes."""

    kind: ClassVar[str]
    labels: list[str]

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (n, K) float32 of texts (n,), in their order."""

    @abstractmethod
    def save_files(self, folder: Path) -> None:
        """Write weights and configuration into an existing folder."""

    @classmethod
    @abstractmethod
    def load_files(cls, folder: Path, labels: list[str]) -> Model:
        """Read what `save_files` wrote."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of weights: what the model costs to keep and to run."""

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int] | None:
        """Tokens of each text (n,) and how many of them are read; None where texts of any length are read whole."""
        return None

    def head_arrays(self) -> dict[str, np.ndarray]:
        """Row norms and bias (K,) of a linear head, as head_norms and head_bias; nothing where there is none."""
        return {}
