"""Metrics of K classes as functions of weighted sums, so that thousands of resamples cost a matrix product.

Every function of this module takes counts (b, groups), how often each group stands in each of b samples, and
gives (b,) values. Names and formulas follow scikit-learn; a ratio without a denominator is 0, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, logsumexp

CALIBRATION_BINS = 15
# Above this many distinct scores only those of the class itself have a bin each, which leaves ranking metrics exact; above so
# many of those they are binned by quantile, and ranking metrics agree with the exact ones to 1e-3.
SCORE_BINS = 4096


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0)


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
    """A test set with scores: labels (n,), logits (n, K), groups (n,) numbered from 0, example weights (n,)."""

    names: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def of_groups(self, per_example: sparse.csr_array) -> sparse.csr_array:
        """Weighted sums per group (groups, m) of per-example values (n, m)."""
        membership = indicator(self.groups, int(self.groups.max()) + 1, self.weights)
        return sparse.csr_array(membership.T @ per_example)


class Metrics:
    """All metrics of one scored test set; `Metrics(scored)(counts)` gives name -> (b,)."""

    def __init__(self, scored: Scored) -> None:
        self.names = scored.names
        classes = len(scored.names)
        self.members = np.bincount(scored.labels, minlength=classes)
        rows = np.arange(len(scored.labels))
        ones = np.ones(len(rows))
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        posterior = np.exp(log_posterior)
        predicted = scored.logits.argmax(axis=1)
        self.assigned = np.bincount(predicted, minlength=classes)
        truth = np.eye(classes)[scored.labels]
        confidence = posterior[rows, predicted]
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        parts = {
            "confusion": indicator(scored.labels * classes + predicted, classes**2, ones),
            "log_loss": sparse.csr_array(-log_posterior[rows, scored.labels][:, None]),
            "brier": sparse.csr_array(((posterior - truth) ** 2).sum(axis=1)[:, None]),
            "posterior": sparse.csr_array(posterior),
            "gap": indicator(bins, CALIBRATION_BINS, confidence - (predicted == scored.labels)),
        }
        self.sums = {name: scored.of_groups(part).toarray() for name, part in parts.items()}
        self.ranking = []
        for label in range(classes):
            positive = scored.labels == label
            bins = score_bins(one_vs_rest(log_posterior, label), positive)
            width = int(bins.max()) + 1
            self.ranking.append(
                [scored.of_groups(indicator(bins, width, each.astype(float))) for each in (positive, ~positive)]
            )

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples: counts (b, groups) -> name -> (b,)."""
        classes = len(self.names)
        counts = counts.astype(np.float64)
        sums = {name: counts @ each for name, each in self.sums.items()}
        confusion = sums["confusion"].reshape(-1, classes, classes)
        total = confusion.sum(axis=(1, 2))
        support, assigned = confusion.sum(axis=2), confusion.sum(axis=1)
        hits = np.einsum("bkk->bk", confusion)
        precision, recall = ratio(hits, assigned), ratio(hits, support)
        f1 = ratio(2 * hits, support + assigned)
        correct = hits.sum(axis=1)
        covariance = correct * total - (support * assigned).sum(axis=1)
        spread = np.sqrt((total**2 - (assigned**2).sum(axis=1)) * (total**2 - (support**2).sum(axis=1)))
        present = support > 0
        values = {
            "accuracy": ratio(correct, total),
            "balanced_accuracy": ratio((recall * present).sum(axis=1), present.sum(axis=1)),
            "macro_f1": f1.mean(axis=1),
            "weighted_f1": ratio((f1 * support).sum(axis=1), total),
            "mcc": np.clip(np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0), -1, 1),
            "log_loss": ratio(sums["log_loss"][:, 0], total),
            "brier": ratio(sums["brier"][:, 0], total),
            "ece": ratio(np.abs(sums["gap"]).sum(axis=1), total),
        }
        for label, name in enumerate(self.names):
            pr_auc, roc_auc = ranking_metrics(*(counts @ each for each in self.ranking[label]))
            values |= {
                f"{name}.precision": precision[:, label],
                f"{name}.recall": recall[:, label],
                f"{name}.f1": f1[:, label],
                f"{name}.support": support[:, label],
                f"{name}.pr_auc": pr_auc,
                f"{name}.roc_auc": roc_auc,
                f"{name}.mean_probability": ratio(sums["posterior"][:, label], total),
                f"{name}.share": ratio(assigned[:, label], total),
            }
        return values


def ranking_metrics(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (b,) each.

    positive, negative : (b, bins) weights of the class and of the rest at each score, ascending. Ties count half in
    the ROC area (Hanley and McNeil 1982) and enter together in average precision, as in scikit-learn.
    """
    true_positives = np.cumsum(positive[:, ::-1], axis=1)
    false_positives = np.cumsum(negative[:, ::-1], axis=1)
    precision = ratio(true_positives, true_positives + false_positives)
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    average_precision = ratio((positive[:, ::-1] * precision).sum(axis=1), positives)
    above = true_positives - positive[:, ::-1] / 2
    area = ratio((negative[:, ::-1] * above).sum(axis=1), positives * negatives)
    return average_precision, area


# Metrics for which less is better.
LOSSES = frozenset({"log_loss", "brier", "ece"})


def metric_names(labels: Sequence[str]) -> list[str]:
    """Names of all metrics of these labels, in the order of a table."""
    overall = ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc", "log_loss", "brier", "ece"]
    per_class = ["precision", "recall", "f1", "support", "pr_auc", "roc_auc", "mean_probability", "share"]
    return overall + [f"{label}.{metric}" for label in labels for metric in per_class]
