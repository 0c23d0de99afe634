"""How far class shares may deviate from an expected prior by chance."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom


def count_bounds(expected: np.ndarray, observations: int, false_alarm: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (K,), (K,) of the class counts among `observations` messages with the expected prior (K,).

    A random sample exceeds the bounds of any class with a probability of at most `false_alarm`: exact binomial quantiles with
    Bonferroni's correction (Clopper and Pearson 1934; Dunn 1961).
    """
    tail = false_alarm / (2 * len(expected))
    return binom.ppf(tail, observations, expected).astype(int), binom.isf(tail, observations, expected).astype(int)
