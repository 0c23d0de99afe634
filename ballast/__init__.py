"""Ballast: techniques for imbalanced text classification, trained and compared honestly."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ballast.models.base import Model

__all__ = ["load"]


def load(folder: str | os.PathLike[str]) -> Model:
    """Load a trained model from its folder.

    Returns an object with `.labels` (K names) and `.logits(texts) -> (n, K) float32`.
    Raises `ballast.exceptions.UserError` when a file is missing or differs from its manifest.
    """
    from ballast.models.folder import load as load_model

    return load_model(folder)
