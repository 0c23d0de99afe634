"""How well scores rank the messages: average precision and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, logsumexp

from ballast.evaluation.statistic import (
    LabelledScores,
    Statistic,
    indicator,
    safe_ratio,
    weighted_sums,
)

# More distinct scores than this are binned by quantile: ranking metrics then agree with the exact ones to 1e-3.
SCORE_BINS = 1024
# Largest log posterior for which 1 - p is exact enough.
LARGEST_COMPLEMENT = np.log(0.5)


def one_vs_rest(log_posterior: np.ndarray, label: int) -> np.ndarray:
    """Log odds (n,) of one class against the others from log posteriors (n, K).

    Examples
    --------
    >>> one_vs_rest(np.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]), label=0).round(3)
    array([0.   , 1.386])
    """
    own = log_posterior[:, label]
    if log_posterior.shape[1] == 2:
        return own - log_posterior[:, 1 - label]
    # The others' share is 1 - p, which loses digits if p is large: there it is summed. This takes O(n) for each of K classes.
    large = np.flatnonzero(own > LARGEST_COMPLEMENT)
    others = np.log1p(-np.exp(np.minimum(own, LARGEST_COMPLEMENT)))
    others[large] = logsumexp(np.delete(log_posterior[large], label, axis=1), axis=1)
    return own - others


def score_bins(scores: np.ndarray, classes: Sequence[np.ndarray]) -> np.ndarray:
    """Ascending bin (n,) of each score. Bins are fine near the scores of `classes`, a list of masks (n,).

    If there are few distinct scores, each has its own bin.

    Examples
    --------
    >>> score_bins(np.array([0.9, 0.1, 0.9]), [np.array([True, False, True])])
    array([1, 0, 1])
    """
    distinct, rank = np.unique(scores, return_inverse=True)
    if len(distinct) <= SCORE_BINS:
        return rank
    class_scores = [np.unique(scores[members]) for members in classes]
    quantiles = np.linspace(0, 1, SCORE_BINS)
    marks = np.unique(np.concatenate([own if len(own) <= SCORE_BINS else np.quantile(own, quantiles) for own in class_scores]))
    # A score at a mark has an odd bin; scores between two marks share an even one.
    return np.searchsorted(marks, scores, side="left") + np.searchsorted(marks, scores, side="right")


# Weights (b, bins) of a class and of the rest at each score, and of both at this score or a higher one.
Sides = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class ScoreOrder:
    """The order of the messages by the scores of each class: weights of the class and of the rest in bins of equal score.

    With two classes, the scores of one are those of the other reversed, so one set of bins serves both. It is then unweighted,
    since a correction to another prior keeps the order.
    """

    def __init__(self, scored: LabelledScores) -> None:
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        binary = len(scored.names) == 2
        counted = replace(scored, class_weights=np.ones(2)) if binary else scored
        self.binned = []
        for label in [1] if binary else range(len(scored.names)):
            sides = (scored.labels == label, scored.labels != label)
            bins = score_bins(one_vs_rest(log_posterior, label), sides if binary else sides[:1])
            width = int(bins.max()) + 1
            self.binned.append([counted.of_groups(indicator(bins, width, side.astype(np.float64))) for side in sides])
        self.counts: np.ndarray | None = None
        self.sides: list[Sides] = []

    def in_samples(self, counts: np.ndarray) -> Iterable[Sides]:
        """The sides of each class in samples of counts (b, groups).

        With two classes, the last result is cached, because several statistics share it. With many classes, the sides of all of
        them would take gigabytes, so they are computed one class at a time.
        """
        if len(self.binned) > 1:
            return (sides_in_samples(counts, binned) for binned in self.binned)
        if counts is not self.counts:
            self.counts, self.sides = counts, [sides_in_samples(counts, binned) for binned in self.binned]
        return self.sides


def sides_in_samples(counts: np.ndarray, binned: Sequence[sparse.csr_array]) -> Sides:
    """The sides of a class in samples of counts (b, groups), from sums (groups, bins) of the class and of the rest.

    Examples
    --------
    >>> of_class, rest = sparse.csr_array([[0.0, 1.0], [0.0, 0.0]]), sparse.csr_array([[0.0, 0.0], [1.0, 0.0]])
    >>> positive, negative, positive_above, negative_above = sides_in_samples(np.array([[1.0, 3.0]]), [of_class, rest])
    >>> positive, negative, positive_above
    (array([[0., 1.]]), array([[3., 0.]]), array([[1., 1.]]))
    """
    positive, negative = (np.ascontiguousarray(weighted_sums(counts, side)) for side in binned)
    return positive, negative, at_or_above(positive), at_or_above(negative)


class Ranking(Statistic):
    """Average precision and area under the ROC curve of each class.

    order : of the same scores, if already computed.
    """

    def __init__(self, scored: LabelledScores, order: ScoreOrder | None = None) -> None:
        self.names = scored.names
        self.sums = np.empty((int(scored.groups.max()) + 1, 0))
        self.order = order or ScoreOrder(scored)
        self.class_weights = scored.class_weights

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        sides = self.order.in_samples(counts)
        weights = [(1.0, 1.0)] * len(self.names)
        if len(self.names) == 2:
            first, second = map(float, self.class_weights)
            [(positive, negative, positive_above, negative_above)] = sides
            # From the other end: weights at this score or a lower one.
            positive_below, negative_below = (
                above[:, :1] - above + here for here, above in ((positive, positive_above), (negative, negative_above))
            )
            sides = [(negative, positive, negative_below, positive_below), *sides]
            weights = [(first, second), (second, first)]
        values = {}
        for name, side, (own, rest) in zip(self.names, sides, weights, strict=True):
            values[f"{name}.pr_auc"], values[f"{name}.roc_auc"] = ranking_metrics(side, own, rest)
        return values


def at_or_above(weights: np.ndarray) -> np.ndarray:
    """Weights (b, bins) at each score or a higher one; bins ascend.

    Examples
    --------
    >>> at_or_above(np.array([[1.0, 0.0, 2.0]]))
    array([[3., 2., 2.]])
    """
    return np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]


def ranking_metrics(sides: Sides, own: float, rest: float) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (b,) each; `own` and `rest` are factors on the sides' weights.

    Ties count half in the ROC area (Hanley and McNeil 1982) and enter together in average precision, as in scikit-learn.

    Examples
    --------
    >>> positive, negative = np.array([[0.0, 1.0, 1.0]]), np.array([[2.0, 1.0, 0.0]])
    >>> sides = (positive, negative, at_or_above(positive), at_or_above(negative))
    >>> average_precision, roc_auc = ranking_metrics(sides, own=1.0, rest=1.0)
    >>> average_precision.round(3), roc_auc
    (array([0.833]), array([0.91666667]))
    """
    positive, negative, positive_above, negative_above = sides
    positives, negatives = positive_above.max(axis=1), negative_above.max(axis=1)
    above = own * positive_above
    precision = above / np.maximum(above + rest * negative_above, np.finfo(above.dtype).tiny)
    average_precision = safe_ratio(np.einsum("bk,bk->b", positive, precision), positives)
    area = np.einsum("bk,bk->b", negative, positive_above) - np.einsum("bk,bk->b", negative, positive) / 2
    return average_precision, safe_ratio(area, positives.astype(np.float64) * negatives)
