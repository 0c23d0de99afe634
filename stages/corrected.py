"""Saved logits of every technique, put on the production prior."""

from __future__ import annotations

from typing import Any

import numpy as np

from ballast.priors import correct
from stages.evaluate import seed_scores


class Corrected:
    """Saved logits by technique and seed, on the production prior (K,)."""

    def __init__(self, evaluations: dict[str, Any], labels: list[str], production: np.ndarray) -> None:
        self.evaluations, self.labels, self.production = evaluations, labels, production

    def logits(self, name: str, seed: int, split: str) -> np.ndarray:
        """Corrected logits (n, K) of `validation` or `test`."""
        effective = self.evaluations[name]["seeds"][str(seed)]["effective_prior"]
        scores, _ = seed_scores(name, seed)
        logits = scores.validation if split == "validation" else scores.test
        return correct(logits.astype(np.float64), np.array([effective[label] for label in self.labels]), self.production)
