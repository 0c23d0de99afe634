"""Balanced batches: each epoch draws all classes equally often.

Source: Mahajan et al., Exploring the Limits of Weakly Supervised Pretraining (1805.00932), resampling; PyTorch's
WeightedRandomSampler with weights 1 / n_c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.compute.batching import shuffled_batches
from ballast.technique import Technique


def balanced_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw n rows for labels (n,): first a class, all with the same probability, then a row of that class."""
    members = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    classes = rng.choice(np.flatnonzero(counts), len(labels))
    within = (rng.random(len(labels)) * counts[classes]).astype(np.int64)
    return members[(np.cumsum(counts) - counts)[classes] + within]


def batches(lengths: np.ndarray, labels: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch of balanced batches of similar length."""
    rows = balanced_rows(labels, rng)
    return [rows[batch] for batch in shuffled_batches(lengths[rows], batch_size, rng)]


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    """Draw with replacement, all classes with the same probability, without weights."""
    return Technique(batches=batches, declared_prior=lambda share: np.full(len(counts), 1 / len(counts)))
