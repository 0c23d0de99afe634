"""How far class shares may stray from an expected prior by chance alone."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom


def count_bounds(expected: np.ndarray, observations: int, false_alarm: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and most messages (K,), (K,) of each class among n drawn from the expected prior (K,).

    A fresh draw leaves the bounds with probability of at most `false_alarm`, over all classes together: exact binomial
    quantiles with Bonferroni's correction (Clopper and Pearson 1934; Dunn 1961).
    """
    tail = false_alarm / (2 * len(expected))
    return binom.ppf(tail, observations, expected).astype(int), binom.isf(tail, observations, expected).astype(int)
