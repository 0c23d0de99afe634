"""Metrics as functions of weighted sums over groups, so that thousands of resamples cost a matrix product.

Statistics take counts (b, groups): how often each group occurs in each of b samples. They return (b,) values per metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import sparse


def safe_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Numerator / denominator, 0 where the denominator is 0.

    Examples
    --------
    >>> safe_ratio(np.array([3, 1]), np.array([4, 0]))
    array([0.75, 0.  ])
    """
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0)


def indicator(columns: np.ndarray, width: int, values: np.ndarray) -> sparse.csr_array:
    """Sparse (n, width) with `values` (n,) at `columns` (n,).

    Examples
    --------
    >>> indicator(np.array([2, 0]), 3, np.array([1.0, 5.0])).toarray()
    array([[0., 0., 1.],
           [5., 0., 0.]])
    """
    return sparse.csr_array((values, (np.arange(len(columns)), columns)), shape=(len(columns), width))


@dataclass(frozen=True)
class LabelledScores:
    """A test set with scores: labels (n,), logits (n, K), groups (n,) numbered from 0, class_weights (K,) of the messages."""

    names: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray
    class_weights: np.ndarray

    def of_groups(self, per_example: sparse.csr_array) -> sparse.csr_array:
        """Weighted sums per group (groups, m) of per-example values (n, m)."""
        membership = indicator(self.groups, int(self.groups.max()) + 1, self.class_weights[self.labels])
        return sparse.csr_array(membership.T @ per_example)


def sums_of_cells(groups: np.ndarray, columns: np.ndarray, width: int, values: np.ndarray) -> np.ndarray:
    """Sums (groups, width) of `values` (n,) in cells of `groups` (n,) and `columns` (n,), stored by column.

    Examples
    --------
    >>> sums_of_cells(groups=np.array([0, 0, 1]), columns=np.array([1, 1, 0]), width=2, values=np.array([2.0, 3.0, 4.0]))
    array([[0., 5.],
           [4., 0.]])
    """
    height = int(groups.max()) + 1
    return np.bincount(columns * height + groups, weights=values, minlength=height * width).reshape(width, height).T


def stack_columns(sums: Sequence[np.ndarray], dtype: type = np.float64) -> np.ndarray:
    """Stack sums (groups, m) side by side, in column-major order.

    Examples
    --------
    >>> stack_columns([np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])])
    array([[1., 3.],
           [2., 4.]])
    """
    return np.vstack([columns.T for columns in sums], dtype=dtype, casting="same_kind").T


def weighted_sums(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums (b, m) of samples: counts (b, groups) times per-group sums (groups, m), in the precision of the counts.

    Examples
    --------
    >>> weighted_sums(np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([[10.0], [1.0]]))
    array([[11.],
           [20.]])
    """
    return counts @ sums.astype(counts.dtype, copy=False)


class Statistic(ABC):
    """Metrics of a test set from sums over its groups: `statistic(counts)` returns name -> (b,).

    sums : (groups, m) weighted sums. Those of many statistics can share one matrix product.
    trials : number of groups behind each metric that is a proportion, since the messages of a group are not independent.
    """

    names: Sequence[str]
    sums: np.ndarray
    trials: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples from their sums (b, m) and counts (b, groups): name -> (b,)."""

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples from counts (b, groups): name -> (b,)."""
        return self.of_sums(weighted_sums(counts, self.sums), counts)


class ClassSupport:
    """Number of messages of each class in samples, shared by all statistics of a test set. The last result is cached."""

    def __init__(self, labels: np.ndarray, groups: np.ndarray, classes: int) -> None:
        self.sums = sums_of_cells(groups, labels, classes, np.ones(len(labels)))
        everything = self.sums.sum(axis=1, keepdims=True)
        self.groups_of, self.groups_of_others = (
            np.count_nonzero(sums, axis=0).astype(float) for sums in (self.sums, everything - self.sums)
        )
        self.counts: np.ndarray | None = None
        self.cached = np.empty((0, classes))

    def in_samples(self, counts: np.ndarray) -> np.ndarray:
        """Support (b, K) in samples of counts (b, groups)."""
        if counts is not self.counts:
            self.counts, self.cached = counts, weighted_sums(counts, self.sums).astype(np.float64)
        return self.cached
