"""Samples with known inclusion probabilities: strata, labels of each stratum, and templates in proportion to their sizes.

Source: Cochran, Sampling Techniques (1977), for stratified samples and for probabilities proportional to size; Hartley and Rao
(1962) for randomised systematic samples.
"""

from __future__ import annotations

import numpy as np

# A single label of a stratum does not show how much its messages vary.
LEAST_LABELS = 2


def equal_parts(measure: np.ndarray, order: np.ndarray, parts: int) -> np.ndarray:
    """The part (n,), from 0, of each item, if the items in an order (n,) are cut into parts of about equal measure (n,).

    Source: Dalenius and Hodges, Minimum Variance Stratification (1959).

    Examples
    --------
    >>> equal_parts(np.array([1.0, 1.0, 1.0, 3.0]), order=np.array([3, 0, 1, 2]), parts=2)
    array([1, 1, 1, 0])
    """
    running = np.cumsum(measure[order])
    part = np.empty(len(measure), dtype=np.int64)
    part[order] = np.clip((running - measure[order] / 2) / running[-1:] * parts, 0, parts - 1)
    return np.unique(part, return_inverse=True)[1]


def allocate(shares: np.ndarray, most: np.ndarray, budget: int) -> np.ndarray:
    """Labels (h,) of each stratum: in proportion to shares (h,), two at least, and at most `most` (h,) templates.

    The labels sum to the budget, or to all templates if they are fewer. With a budget below two labels for each stratum, the
    strata with the largest shares come first, so the caller must not have more strata than labels.

    Examples
    --------
    >>> allocate(np.array([0.6, 0.3, 0.1]), most=np.array([4, 50, 50]), budget=12)
    array([4, 6, 2])
    """
    labels = np.minimum(most, 1)
    for least in range(2, LEAST_LABELS + 1):
        more = np.minimum(most, least)
        labels = more if more.sum() <= budget else labels
    # One label after another to the stratum that lacks most (Sainte-Lague), which respects both bounds exactly.
    for _ in range(min(budget, int(most.sum())) - int(labels.sum())):
        labels[np.argmax(np.where(labels < most, shares / (2 * labels + 1), -1.0))] += 1
    return labels


def proportional_probabilities(sizes: np.ndarray, count: int) -> np.ndarray:
    """Inclusion probabilities (t,) that are proportional to sizes (t,), at most 1, and sum to `count`.

    Examples
    --------
    >>> proportional_probabilities(np.array([1, 1, 2, 12]), count=2)
    array([0.25, 0.25, 0.5 , 1.  ])
    """
    probabilities = np.ones(len(sizes))
    free = np.arange(len(sizes))
    while len(free) and count > (certain := len(sizes) - len(free)):
        proposed = (count - certain) * sizes[free] / sizes[free].sum()
        if (proposed < 1).all():
            probabilities[free] = proposed
            break
        free = free[proposed < 1]
    return probabilities


def systematic_rows(probabilities: np.ndarray, order: np.ndarray, start: float) -> np.ndarray:
    """A sample with given inclusion probabilities (t,), which sum to a whole number: the items, in an order (t,), on a grid.

    With a start that is uniform in [0, 1), each item has its probability in every order. A random order makes all pairs
    possible.

    Examples
    --------
    >>> systematic_rows(np.array([0.25, 0.25, 0.5, 1.0]), order=np.array([2, 0, 1, 3]), start=0.6)
    array([0, 3])
    """
    certain = probabilities >= 1
    rest = order[~certain[order]]
    running = np.cumsum(probabilities[rest])
    count = round(float(running[-1])) if len(rest) else 0
    # Rounding errors must not move a point of the grid behind the last item.
    at = np.searchsorted(running, (start + np.arange(count)) * (running[-1] / count if count else 1.0), side="right")
    return np.sort(np.concatenate([np.flatnonzero(certain), rest[np.minimum(at, len(rest) - 1)]]))
