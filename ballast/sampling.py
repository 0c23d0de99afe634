"""Choosing rows of each class: how many, how often."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ballast.exceptions import UserError

# Of the largest class to any other: with less the sample would be a hundred times the data.
LEAST_RATIO = 0.01


def all_rows(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each row once with weight 1: `labels` (n,) -> rows (n,), weights (n,).

    Examples
    --------
    >>> all_rows(np.array([0, 0, 1]), np.random.default_rng(0))
    (array([0, 1, 2]), array([1., 1., 1.]))
    """
    return np.arange(len(labels)), np.ones(len(labels))


def rows_per_class(labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw `wanted[c]` rows of each class c, each row as often as any other of its class, give or take one.

    Parameters
    ----------
    labels : (n,) class indices below K.
    wanted : (K,) rows to draw of each class; fewer than there are drops rows, more repeats them.

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
        # The same shuffle whatever the count: fewer rows of a class are among more of it, and the other classes stay as drawn.
        chosen += [np.tile(members, repeats), rng.permutation(members)[:remainder]]
    return np.sort(np.concatenate(chosen))


def importance_weights(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weights (m,) that keep each class's share of the loss: n_c / m_c, after rounding of m_c.

    Source: Google's course on imbalanced data, downsampling and upweighting.

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
    """(K,) counts with every class cut to at most `ratio` times the smallest class.

    Examples
    --------
    >>> downsampled_counts(np.array([900, 40, 60]), ratio=2.0)
    array([80, 40, 60])
    """
    return np.minimum(counts, np.maximum(1, np.round(ratio * counts.min()))).astype(np.int64)


def upsampled_counts(counts: np.ndarray, ratio: float) -> np.ndarray:
    """(K,) counts with every class raised until the largest class is at most `ratio` times as large; raises UserError.

    Examples
    --------
    >>> upsampled_counts(np.array([900, 40, 60]), ratio=3.0)
    array([900, 300, 300])
    """
    if ratio < LEAST_RATIO:
        raise UserError(
            f"ratio is {ratio:g}, which makes a sample many times the data; expected a number of at least {LEAST_RATIO:g}"
        )
    return np.maximum(counts, np.round(counts.max() / ratio)).astype(np.int64)


def make_sampler(
    wanted: np.ndarray, *, keep_expected_loss: bool
) -> Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """A technique's `sample` that draws `wanted` (K,) rows of each class.

    With `keep_expected_loss` the rows are weighted so that the expected loss stays that of the full data; else each weighs 1.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> sample = make_sampler(np.array([2, 1]), keep_expected_loss=True)
    >>> rows, weights = sample(labels, np.random.default_rng(0))
    >>> np.bincount(labels[rows]), weights
    (array([2, 1]), array([2., 2., 1.]))
    """

    def sample(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = rows_per_class(labels, wanted, rng)
        return rows, importance_weights(labels, rows) if keep_expected_loss else np.ones(len(rows))

    return sample
