"""Metrics of K classes as functions of weighted sums, so that thousands of resamples cost a matrix product.

Every function of this module takes counts (b, groups), how often each group stands in each of b samples, and
gives (b,) values. Names and formulas follow scikit-learn; a ratio without a denominator is 0, as there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, logsumexp

from ballast.errors import UserError, nearest

CALIBRATION_BINS = 15
# More distinct scores than this are binned by quantile: ranking metrics then agree with the exact ones to 1e-3.
SCORE_BINS = 4096
# Relative error of sums in single precision.
ROUNDING = 1e-6


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0)


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 of the classes that occur in labels (n,); predicted (n,)."""
    classes = max(int(labels.max()), int(predicted.max())) + 1
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    support, assigned = np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)
    return float(ratio(2 * hits, support + assigned)[support > 0].mean())


def one_vs_rest(log_posterior: np.ndarray, label: int) -> np.ndarray:
    """Log odds (n,) of one class against the others from log posteriors (n, K)."""
    others = np.delete(log_posterior, label, axis=1)
    return log_posterior[:, label] - logsumexp(others, axis=1)


def score_bins(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Bin (n,) of each score, ascending; `positive` (n,) booleans mark the class. Few distinct scores have a bin each."""
    distinct, rank = np.unique(scores, return_inverse=True)
    if len(distinct) <= SCORE_BINS:
        return rank
    marks = np.unique(scores[positive])
    if len(marks) > SCORE_BINS:
        marks = np.unique(np.quantile(marks, np.linspace(0, 1, SCORE_BINS)))
    # A score at a mark has an odd bin, those between two marks share an even one.
    return np.searchsorted(marks, scores, side="left") + np.searchsorted(marks, scores, side="right")


def indicator(columns: np.ndarray, width: int, values: np.ndarray) -> sparse.csr_array:
    """Sparse (n, width) with `values` (n,) at `columns` (n,)."""
    return sparse.csr_array((values, (np.arange(len(columns)), columns)), shape=(len(columns), width))


@dataclass(frozen=True)
class Scored:
    """A test set with scores: labels (n,), logits (n, K), groups (n,) numbered from 0, class_weights (K,) of its messages."""

    names: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray
    class_weights: np.ndarray

    def of_groups(self, per_example: sparse.csr_array) -> sparse.csr_array:
        """Weighted sums per group (groups, m) of per-example values (n, m)."""
        membership = indicator(self.groups, int(self.groups.max()) + 1, self.class_weights[self.labels])
        return sparse.csr_array(membership.T @ per_example)


def summed(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums (b, m) over samples of counts (b, groups) and per-group sums (groups, m), in the precision of the counts."""
    return (counts @ sums.astype(counts.dtype, copy=False)).astype(np.float64)


class Statistic(ABC):
    """Metrics of one scored test set from sums over its groups; `statistic(counts)` gives name -> (b,).

    sums : (groups, m) weighted sums, so that those of many statistics can be taken in one matrix product.
    trials : the number of messages behind each metric that is a proportion, unweighted.
    """

    names: Sequence[str]
    sums: np.ndarray
    trials: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples: their sums (b, m) and counts (b, groups) -> name -> (b,)."""

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples: counts (b, groups) -> name -> (b,)."""
        return self.of_sums(summed(counts, self.sums), counts)


class Decisions(Statistic):
    """What the predicted classes alone tell: accuracy, precision, recall, F1 and their like.

    sums : (groups, 3K) right messages of each class, messages assigned to it, and its members.
    """

    def __init__(self, scored: Scored) -> None:
        classes = len(scored.names)
        predicted = scored.logits.argmax(axis=1)
        ones = np.ones(len(predicted))
        right = indicator(scored.labels, classes, (predicted == scored.labels).astype(np.float64))
        columns = sparse.hstack([right, indicator(predicted, classes, ones), indicator(scored.labels, classes, ones)])
        members, assigned = (np.bincount(each, minlength=classes).astype(float) for each in (scored.labels, predicted))
        self.names = scored.names
        self.sums = scored.of_groups(sparse.csr_array(columns)).toarray()
        self.trials = {
            "accuracy": float(len(predicted)),
            **{f"{name}.recall": members[label] for label, name in enumerate(scored.names)},
            **{f"{name}.precision": assigned[label] for label, name in enumerate(scored.names)},
        }

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        hits, assigned, support = np.split(sums, 3, axis=1)
        total = support.sum(axis=1)
        precision, recall = ratio(hits, assigned), ratio(hits, support)
        f1 = ratio(2 * hits, support + assigned)
        correct = hits.sum(axis=1)
        shares = [ratio(each, total[:, None]) for each in (assigned, support)]
        covariance = ratio(correct, total) - (shares[0] * shares[1]).sum(axis=1)
        # Of one class only nothing but rounding is left.
        variances = [each * (each > ROUNDING) for each in (1 - (share**2).sum(axis=1) for share in shares)]
        spread = np.sqrt(variances[0] * variances[1])
        present = support > 0
        values = {
            "accuracy": ratio(correct, total),
            "balanced_accuracy": ratio((recall * present).sum(axis=1), present.sum(axis=1)),
            "macro_f1": f1.mean(axis=1),
            "weighted_f1": ratio((f1 * support).sum(axis=1), total),
            "mcc": np.clip(ratio(covariance, spread), -1, 1),
        }
        for label, name in enumerate(self.names):
            values |= {
                f"{name}.precision": precision[:, label],
                f"{name}.recall": recall[:, label],
                f"{name}.f1": f1[:, label],
                f"{name}.support": support[:, label],
                f"{name}.share": ratio(assigned[:, label], total),
            }
        return values


class Probabilities(Statistic):
    """What the posteriors tell: log loss, Brier score, calibration error, mean probability of each class.

    sums : (groups, 3 + K + bins) messages, log loss, Brier score, posteriors, confidence less accuracy by bin.
    """

    def __init__(self, scored: Scored) -> None:
        rows = np.arange(len(scored.labels))
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        posterior = np.exp(log_posterior)
        predicted = scored.logits.argmax(axis=1)
        truth = np.eye(len(scored.names))[scored.labels]
        confidence = posterior[rows, predicted]
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        columns = np.column_stack(
            [
                np.ones(len(rows)),
                -log_posterior[rows, scored.labels],
                ((posterior - truth) ** 2).sum(axis=1),
                posterior,
                indicator(bins, CALIBRATION_BINS, confidence - (predicted == scored.labels)).toarray(),
            ]
        )
        self.names = scored.names
        self.sums = scored.of_groups(sparse.csr_array(columns)).toarray()

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        total, log_loss, brier, posterior, gap = np.split(sums, [1, 2, 3, 3 + len(self.names)], axis=1)
        means = ratio(posterior, total)
        return {
            "log_loss": ratio(log_loss, total)[:, 0],
            "brier": ratio(brier, total)[:, 0],
            "ece": ratio(np.abs(gap).sum(axis=1), total[:, 0]),
            **{f"{name}.mean_probability": means[:, label] for label, name in enumerate(self.names)},
        }


class Ranking(Statistic):
    """How well scores order the messages: average precision and the area under the ROC curve of each class."""

    def __init__(self, scored: Scored) -> None:
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        self.names = scored.names
        self.sums = np.empty((int(scored.groups.max()) + 1, 0))
        self.binned = []
        for label in range(len(scored.names)):
            sides = (scored.labels == label, scored.labels != label)
            bins = score_bins(one_vs_rest(log_posterior, label), sides[0])
            width = int(bins.max()) + 1
            self.binned.append([scored.of_groups(indicator(bins, width, side.astype(np.float64))) for side in sides])

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        values = {}
        for name, sides in zip(self.names, self.binned, strict=True):
            values[f"{name}.pr_auc"], values[f"{name}.roc_auc"] = ranking_metrics(*(summed(counts, side) for side in sides))
        return values


class Metrics(Statistic):
    """All metrics of one scored test set; `Metrics(scored)(counts)` gives name -> (b,)."""

    def __init__(self, scored: Scored) -> None:
        decisions = Decisions(scored)
        self.parts: list[Statistic] = [decisions, Probabilities(scored), Ranking(scored)]
        self.trials = decisions.trials
        self.sums = np.hstack([part.sums for part in self.parts])

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum([part.sums.shape[1] for part in self.parts])[:-1]
        pieces = zip(self.parts, np.split(sums, ends, axis=1), strict=True)
        return {name: values for part, piece in pieces for name, values in part.of_sums(piece, counts).items()}


def ranking_metrics(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (b,) each.

    positive, negative : (b, bins) weights of the class and of the rest at each score, ascending. Ties count half in
    the ROC area (Hanley and McNeil 1982) and enter together in average precision, as in scikit-learn.
    """
    positive, negative = positive[:, ::-1], negative[:, ::-1]
    true_positives = np.cumsum(positive, axis=1)
    false_positives = np.cumsum(negative, axis=1)
    positives, negatives = true_positives[:, -1].astype(np.float64), false_positives[:, -1].astype(np.float64)
    precision = true_positives / np.maximum(true_positives + false_positives, np.finfo(true_positives.dtype).tiny)
    average_precision = ratio(np.einsum("bk,bk->b", positive, precision), positives)
    area = ratio(np.einsum("bk,bk->b", negative, true_positives - positive / 2), positives * negatives)
    return average_precision, area


# Metrics for which less is better.
LOSSES = frozenset({"log_loss", "brier", "ece"})


def metric_names(labels: Sequence[str]) -> list[str]:
    """Names of all metrics of these labels, in the order of a table."""
    overall = ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc", "log_loss", "brier", "ece"]
    per_class = ["precision", "recall", "f1", "support", "pr_auc", "roc_auc", "mean_probability", "share"]
    return overall + [f"{label}.{metric}" for label in labels for metric in per_class]


def check_metric(name: str, metric: str, labels: Sequence[str]) -> None:
    """Raise UserError for a metric that these labels do not have; `name` says which setting names it."""
    known = metric_names(labels)
    if metric not in known:
        raise UserError(f"{name}: unknown metric {metric!r}: {nearest(metric, known)}")
