"""How far class shares may deviate by chance: from an expected prior, and between two samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, chi2_contingency, fisher_exact
from scipy.stats.contingency import expected_freq

# With larger expected counts, the chi-square test is as good as the exact one.
EXACT_BELOW = 1000


def count_bounds(expected: np.ndarray, observations: int, false_alarm: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (K,), (K,) of the class counts among `observations` messages with the expected prior (K,).

    A random sample exceeds the bounds of any class with a probability of at most `false_alarm`: exact binomial quantiles with
    Bonferroni's correction (Clopper and Pearson 1934; Dunn 1961).
    """
    tail = false_alarm / (2 * len(expected))
    return binom.ppf(tail, observations, expected).astype(int), binom.isf(tail, observations, expected).astype(int)


@dataclass(frozen=True, kw_only=True)
class SharesTest:
    """A test of the hypothesis that two samples have the same class shares: its name and its p value."""

    name: str
    p: float


def same_shares(first: np.ndarray, second: np.ndarray) -> SharesTest:
    """Test whether class counts (K,) and (K,) come from the same class shares.

    Two classes with a small count are tested exactly (Fisher 1922), others by the chi-square test of homogeneity (Pearson
    1900). The counts are of independent messages.

    Examples
    --------
    >>> same_shares(np.array([990, 10]), np.array([82, 18]))
    SharesTest(name="Fisher's exact test", p=2.5...e-13)
    >>> same_shares(np.array([500, 300, 200]), np.array([50, 30, 20]))
    SharesTest(name='chi-square test', p=1.0)
    """
    table = np.stack([first, second])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return SharesTest(name="chi-square test", p=1.0)
    if table.shape[1] == 2 and expected_freq(table).min() < EXACT_BELOW:
        return SharesTest(name="Fisher's exact test", p=float(fisher_exact(table).pvalue))
    return SharesTest(name="chi-square test", p=float(chi2_contingency(table, correction=False).pvalue))
