"""Resampling: how many rows of each class a technique trains on, and with which weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ballast.exceptions import UserError

# Smallest ratio of the largest class to another one; a smaller ratio makes a sample of more than a hundred times the data.
MINIMUM_RATIO = 0.01


def all_rows(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Take each row once with weight 1: labels (n,) -> rows (n,), weights (n,).

    Examples
    --------
    >>> all_rows(np.array([0, 0, 1]), np.random.default_rng(0))
    (array([0, 1, 2]), array([1., 1., 1.]))
    """
    return np.arange(len(labels)), np.ones(len(labels))


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """Class weights w_c = N / (K n_c) for counts (K,); the mean weight of a training message is 1.

    Examples
    --------
    >>> inverse_frequency(np.array([75, 25])).round(2)
    array([0.67, 2.  ])
    """
    weights: np.ndarray = counts.sum() / (len(counts) * counts)
    return weights


def rows_per_class(labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator, *, bootstrap: bool = False) -> np.ndarray:
    """Draw `wanted[c]` rows of each class c; the rows of a class are drawn equally often, give or take one.

    Parameters
    ----------
    labels : (n,) class indices below K.
    wanted : (K,) rows to draw of each class; less than the class has drops rows, more repeats them.
    rng : source of randomness.
    bootstrap : whether repeats are drawn with replacement, as by imbalanced-learn's RandomOverSampler. Each row still occurs
        at least once.

    Returns
    -------
    (sum of wanted,) rows in ascending order.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> rows = rows_per_class(labels, wanted=np.array([2, 4]), rng=np.random.default_rng(0))
    >>> np.bincount(labels[rows])
    array([2, 4])
    """
    chosen = []
    for label, count in enumerate(wanted):
        members = np.flatnonzero(labels == label)
        repeats, remainder = divmod(int(count), len(members))
        if bootstrap and repeats:
            chosen += [members, rng.choice(members, size=int(count) - len(members))]
            continue
        # The shuffle does not depend on the count, so a smaller sample of a class is part of a larger one.
        chosen += [np.tile(members, repeats), rng.permutation(members)[:remainder]]
    return np.sort(np.concatenate(chosen))


def importance_weights(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weights (m,) of sampled rows (m,) that keep each class's share of the loss: n_c / m_c for labels (n,).

    Source: Google, Machine Learning Crash Course, imbalanced data (downsampling and upweighting).

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> importance_weights(labels, rows=np.array([0, 2, 4]))
    array([2., 2., 1.])
    """
    before = np.bincount(labels)
    after = np.bincount(labels[rows], minlength=len(before))
    return (before / np.maximum(after, 1))[labels[rows]]


def downsampled_counts(counts: np.ndarray, ratio: float) -> np.ndarray:
    """Cut the counts (K,) of all classes to at most `ratio` times the smallest class.

    Examples
    --------
    >>> downsampled_counts(np.array([900, 40, 60]), ratio=2.0)
    array([80, 40, 60])
    """
    return np.minimum(counts, np.maximum(1, np.round(ratio * counts.min()))).astype(np.int64)


def upsampled_counts(counts: np.ndarray, ratio: float) -> np.ndarray:
    """Raise the counts (K,) of all classes until the largest class is at most `ratio` times as large as any other.

    Raises UserError if the ratio is below 0.01.

    Examples
    --------
    >>> upsampled_counts(np.array([900, 40, 60]), ratio=3.0)
    array([900, 300, 300])
    """
    if ratio < MINIMUM_RATIO:
        raise UserError(f"ratio must be at least {MINIMUM_RATIO:g}, got {ratio:g}: the sample would be many times the data")
    return np.maximum(counts, np.round(counts.max() / ratio)).astype(np.int64)


def multiplied_counts(counts: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the counts (K,) of the larger classes by a `factor` below 1, or those of the smaller ones by one above 1.

    A factor below 1 leaves the smallest class as it is and cuts no class below it; a factor above 1 leaves the largest class as
    it is and raises no class above it.

    Examples
    --------
    >>> multiplied_counts(np.array([900, 40, 60]), 0.5)
    array([450,  40,  40])
    >>> multiplied_counts(np.array([900, 40, 500]), 2)
    array([900,  80, 900])
    """
    multiplied = np.round(factor * counts)
    limited = np.maximum(multiplied, counts.min()) if factor < 1 else np.minimum(multiplied, counts.max())
    return limited.astype(np.int64)


def make_sampler(
    wanted: np.ndarray, *, keep_expected_loss: bool, bootstrap: bool = False
) -> Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """Make the `sample` function of a technique that draws `wanted` (K,) rows of each class.

    keep_expected_loss : whether weights keep the expected loss of the full data; otherwise every row has weight 1.
    bootstrap : whether repeats are drawn with replacement.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> sample = make_sampler(np.array([2, 1]), keep_expected_loss=True)
    >>> rows, weights = sample(labels, np.random.default_rng(0))
    >>> np.bincount(labels[rows]), weights
    (array([2, 1]), array([2., 2., 1.]))
    """

    def sample(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = rows_per_class(labels, wanted, rng, bootstrap=bootstrap)
        return rows, importance_weights(labels, rows) if keep_expected_loss else np.ones(len(rows))

    return sample
