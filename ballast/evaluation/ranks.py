"""Ranks of techniques over data sets: Friedman's test, pairwise tests with Holm's correction, the critical difference.

Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import friedmanchisquare, norm, rankdata, studentized_range

from ballast.evaluation.comparison import holm
from ballast.exceptions import ArgumentError

# Friedman's test compares at least three techniques on at least two data sets.
LEAST_TECHNIQUES, LEAST_DATA_SETS = 3, 2


@dataclass(frozen=True, kw_only=True)
class Friedman:
    """Friedman's test that all techniques have the same mean rank.

    statistic, p : chi-squared with correction for ties, and its p-value.
    f, p_f : the F statistic of Iman and Davenport (1980), which is less conservative, and its p-value.
    """

    statistic: float
    p: float
    f: float
    p_f: float


def ranked(values: np.ndarray, *, higher_is_better: bool = True) -> np.ndarray:
    """Ranks (N, k) of k techniques on each of N data sets; 1 is the best, and ties have the mean of their ranks.

    Raises ArgumentError for values that are not finite, because a technique without a value has no rank.

    Examples
    --------
    >>> ranked(np.array([[0.9, 0.8, 0.8], [0.7, 0.9, 0.8]]))
    array([[1. , 2.5, 2.5],
           [3. , 1. , 2. ]])
    """
    if not np.isfinite(values).all():
        raise ArgumentError("values must be finite: every technique needs a value on every data set")
    ranks: np.ndarray = rankdata(-values if higher_is_better else values, axis=1)
    return ranks


def friedman(ranks: np.ndarray) -> Friedman:
    """Friedman's test on ranks (N, k) of k techniques on N data sets; raises ArgumentError for fewer than 2 or 3.

    Examples
    --------
    >>> test = friedman(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]))
    >>> test.statistic, round(test.p, 3), test.f, round(test.p_f, 4)
    (6.5, 0.039, 13.0, 0.0066)
    """
    n, k = ranks.shape
    if n < LEAST_DATA_SETS or k < LEAST_TECHNIQUES:
        raise ArgumentError(
            f"ranks: {k} techniques on {n} data sets; Friedman's test needs {LEAST_TECHNIQUES} techniques and"
            f" {LEAST_DATA_SETS} data sets"
        )
    if (ranks == ranks[:, :1]).all():
        # Every technique ties with every other one on every data set; scipy would divide by zero.
        return Friedman(statistic=0.0, p=1.0, f=0.0, p_f=1.0)
    statistic, p = map(float, friedmanchisquare(*ranks.T))
    rest = n * (k - 1) - statistic
    # The same order on every data set leaves nothing to compare the differences with.
    f = (n - 1) * statistic / rest if rest > 1e-9 else np.inf
    return Friedman(statistic=statistic, p=p, f=float(f), p_f=float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1))))


def standard_error(k: int, n: int) -> float:
    """Standard error of the difference of two mean ranks of k techniques over n data sets if all techniques are equal.

    Examples
    --------
    >>> round(standard_error(k=4, n=14), 3)
    0.488
    """
    return float(np.sqrt(k * (k + 1) / (6 * n)))


def critical_difference(k: int, n: int, confidence: float = 0.95) -> float:
    """Smallest difference of two mean ranks that Nemenyi's test shows, for all pairs of k techniques over n data sets.

    Examples
    --------
    >>> round(critical_difference(k=4, n=14), 2)
    1.25
    """
    return float(studentized_range.ppf(confidence, k, np.inf) / np.sqrt(2)) * standard_error(k, n)


def rank_p_value(difference: float, k: int, n: int) -> float:
    """Two-sided p-value of a difference of two mean ranks of k techniques over n data sets.

    Examples
    --------
    >>> round(rank_p_value(3.143 - 1.964, k=4, n=14), 3)
    0.016
    """
    return float(2 * norm.sf(abs(difference) / standard_error(k, n)))


def against_control(mean_ranks: Mapping[str, float], n: int, control: str) -> dict[str, float]:
    """P-values of all techniques against a control, adjusted by Holm's method, from mean ranks over n data sets.

    The control is chosen before the ranks are seen, such as the baseline. This is more powerful than all pairs.

    Examples
    --------
    >>> adjusted = against_control({"C4.5": 3.143, "m": 2.0, "cf": 2.893, "m+cf": 1.964}, n=14, control="C4.5")
    >>> {name: round(p, 3) for name, p in adjusted.items()}
    {'m': 0.047, 'cf': 0.608, 'm+cf': 0.047}
    """
    others = [name for name in mean_ranks if name != control]
    k = len(mean_ranks)
    return holm({name: rank_p_value(mean_ranks[control] - mean_ranks[name], k, n) for name in others})


def all_pairs(mean_ranks: Mapping[str, float], n: int) -> dict[tuple[str, str], float]:
    """P-values of all pairs of techniques, adjusted by Holm's method, from mean ranks over n data sets.

    Examples
    --------
    >>> adjusted = all_pairs({"a": 1.0, "b": 2.2, "c": 2.8}, n=10)
    >>> {pair: round(p, 4) for pair, p in adjusted.items()}
    {('a', 'b'): 0.0146, ('a', 'c'): 0.0002, ('b', 'c'): 0.1797}
    """
    pairs = combinations(mean_ranks, 2)
    k = len(mean_ranks)
    return holm({(one, other): rank_p_value(mean_ranks[one] - mean_ranks[other], k, n) for one, other in pairs})


def level_groups(mean_ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """First and last position of each largest group of ascending mean ranks that lie within `width`.

    These are the bars of a critical-difference diagram: techniques under one bar are not shown to differ.

    Examples
    --------
    >>> level_groups([1.0, 1.8, 2.5, 4.0], width=1.25)
    [(0, 1), (1, 2)]
    """
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(mean_ranks):
        last = max(at for at, other in enumerate(mean_ranks) if other - rank < width)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups
