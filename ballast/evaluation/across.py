"""What holds across data sets: counts of verdicts, mean differences, and how differences depend on the rare class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, factorial

import numpy as np
from scipy.stats import permutation_test, spearmanr, t

from ballast.evaluation.comparison import BETTER, EQUIVALENT, NOT_SHOWN, WORSE

VERDICTS = (BETTER, EQUIVALENT, NOT_SHOWN, WORSE)
# Up to this many data sets, all orders are tried; with more, a random part of them.
MOST_EXACT = 8
RANDOM_ORDERS = 20_000
# With fewer data sets, no order of them would be surprising.
LEAST_FOR_ORDER = 4
TAIL_SHARE = 0.1


def verdict_counts(verdicts: Iterable[str]) -> dict[str, int]:
    """How often each verdict occurs, in the order better, equivalent, not shown, worse.

    Examples
    --------
    >>> verdict_counts(["better", "not shown", "better"])
    {'better': 2, 'equivalent': 0, 'not shown': 1, 'worse': 0}
    """
    given = list(verdicts)
    return {word: given.count(word) for word in VERDICTS}


def mean_over_data_sets(values: Sequence[float], confidence: float = 0.95) -> dict[str, float | None]:
    """Mean of one value per data set with Student's interval, which takes the data sets as a sample of all data sets.

    The interval is None for a single data set.

    Examples
    --------
    >>> {name: round(value, 3) for name, value in mean_over_data_sets([0.01, 0.03, 0.02]).items()}
    {'value': 0.02, 'low': -0.005, 'high': 0.045}
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return {"value": mean, "low": mean - half, "high": mean + half}


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """Spearman's correlation of two values per data set, with a p-value from permutations; all of them for few data sets.

    None for fewer than four data sets, and if all values of one side are equal.

    Examples
    --------
    >>> rank_correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    {'rho': 1.0, 'p': 0.016666666666666666}
    >>> rank_correlation([1, 2, 3], [1, 2, 3]) is None
    True
    """
    if len(x) < LEAST_FOR_ORDER or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    orders = factorial(len(x)) if len(x) <= MOST_EXACT else RANDOM_ORDERS
    tested = permutation_test(
        (np.asarray(x, dtype=float),),
        lambda values: spearmanr(values, y).statistic,
        permutation_type="pairings",
        n_resamples=orders,
        rng=np.random.default_rng(0),
    )
    return {"rho": round(float(tested.statistic), 12), "p": float(tested.pvalue)}


def tail_classes(counts: Sequence[int], share: float = TAIL_SHARE) -> list[int]:
    """The rarest tenth of the K classes, at least one, by their messages (K,), rarest first; ties in the order of the classes.

    Long-tailed learning reports the tail, or few-shot, classes apart from the head (Liu et al., Large-Scale Long-Tailed
    Recognition in an Open World, 2019). Its fixed limit of 20 training examples fits one kind of data; a share fits all.

    Examples
    --------
    >>> tail_classes([50, 3, 9, 8]), len(tail_classes([5] * 150))
    ([1], 15)
    """
    order = sorted(range(len(counts)), key=lambda at: counts[at])
    return order[: max(1, ceil(share * len(counts) - 1e-9))]
