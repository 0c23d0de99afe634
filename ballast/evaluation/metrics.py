"""Metrics of K classes as functions of weighted sums, so that thousands of resamples cost a matrix product.

Every function of this module takes counts (b, groups), how often each group stands in each of b samples, and
gives (b,) values. Names and formulas follow scikit-learn; a ratio without a denominator is 0, as there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, logsumexp

from ballast.exceptions import UserError, suggestion

CALIBRATION_BINS = 15
# More distinct scores than this are binned by quantile: ranking metrics then agree with the exact ones to 1e-3.
SCORE_BINS = 1024
# Relative error of sums in single precision.
ROUNDING = 1e-6


def safe_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Numerator / denominator, 0 where the denominator is 0.

    Examples
    --------
    >>> safe_ratio(np.array([3, 1]), np.array([4, 0]))
    array([0.75, 0.  ])
    """
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0)


def macro_f1(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean F1 of the classes that occur in labels (n,); predicted (n,), weights (n,) or all the same.

    Examples
    --------
    >>> round(macro_f1(predicted=np.array([0, 0, 1, 1]), labels=np.array([0, 0, 0, 1])), 3)
    0.733
    """
    classes = max(int(labels.max()), int(predicted.max())) + 1
    weights = np.ones(len(labels)) if weights is None else weights
    hits = np.bincount(labels, weights * (predicted == labels), minlength=classes)
    support, assigned = (np.bincount(each, weights, minlength=classes) for each in (labels, predicted))
    return float(safe_ratio(2 * hits, support + assigned)[support > 0].mean())


def one_vs_rest(log_posterior: np.ndarray, label: int) -> np.ndarray:
    """Log odds (n,) of one class against the others from log posteriors (n, K).

    Examples
    --------
    >>> one_vs_rest(np.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]), label=0).round(3)
    array([0.   , 1.386])
    """
    others = np.delete(log_posterior, label, axis=1)
    return log_posterior[:, label] - logsumexp(others, axis=1)


def score_bins(scores: np.ndarray, classes: Sequence[np.ndarray]) -> np.ndarray:
    """Bin (n,) of each score, ascending, fine where the scores of `classes` lie, (n,) booleans each.

    Few distinct scores have a bin each.

    Examples
    --------
    >>> score_bins(np.array([0.9, 0.1, 0.9]), [np.array([True, False, True])])
    array([1, 0, 1])
    """
    distinct, rank = np.unique(scores, return_inverse=True)
    if len(distinct) <= SCORE_BINS:
        return rank
    of_classes = [np.unique(scores[members]) for members in classes]
    quantiles = np.linspace(0, 1, SCORE_BINS)
    marks = np.unique(
        np.concatenate([each if len(each) <= SCORE_BINS else np.quantile(each, quantiles) for each in of_classes])
    )
    # A score at a mark has an odd bin, those between two marks share an even one.
    return np.searchsorted(marks, scores, side="left") + np.searchsorted(marks, scores, side="right")


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
    """A test set with scores: labels (n,), logits (n, K), groups (n,) numbered from 0, class_weights (K,) of its messages.

    Examples
    --------
    >>> labels, logits = np.array([0, 0, 1]), np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> test = LabelledScores(["ham", "spam"], labels, logits, groups=np.arange(3), class_weights=np.ones(2))
    >>> values = Metrics(test)(np.ones((1, 3)))
    >>> {name: round(float(values[name][0]), 3) for name in ("accuracy", "spam.precision", "spam.pr_auc")}
    {'accuracy': 0.667, 'spam.precision': 0.5, 'spam.pr_auc': 1.0}
    """

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
    """Sums (groups, m) each, next to each other and stored by column.

    Examples
    --------
    >>> stack_columns([np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])])
    array([[1., 3.],
           [2., 4.]])
    """
    return np.vstack([each.T for each in sums], dtype=dtype, casting="same_kind").T


def weighted_sums(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums (b, m) over samples of counts (b, groups) and per-group sums (groups, m), in the precision of the counts.

    Examples
    --------
    >>> weighted_sums(np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([[10.0], [1.0]]))
    array([[11.],
           [20.]])
    """
    return counts @ sums.astype(counts.dtype, copy=False)


class Statistic(ABC):
    """Metrics of one scored test set from sums over its groups; `statistic(counts)` gives name -> (b,).

    sums : (groups, m) weighted sums, so that those of many statistics can be taken in one matrix product.
    trials : the number of groups behind each metric that is a proportion; the messages of a group are right or wrong together.
    """

    names: Sequence[str]
    sums: np.ndarray
    trials: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples: their sums (b, m) and counts (b, groups) -> name -> (b,)."""

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of samples: counts (b, groups) -> name -> (b,)."""
        return self.of_sums(weighted_sums(counts, self.sums), counts)


class ClassSupport:
    """The messages (b, K) of each class in samples, which all statistics of one test set share; the last answer is kept."""

    def __init__(self, labels: np.ndarray, groups: np.ndarray, classes: int) -> None:
        self.sums = sums_of_cells(groups, labels, classes, np.ones(len(labels)))
        everything = self.sums.sum(axis=1, keepdims=True)
        self.groups_of, self.groups_of_others = (
            np.count_nonzero(each, axis=0).astype(float) for each in (self.sums, everything - self.sums)
        )
        self.counts: np.ndarray | None = None
        self.found = np.empty((0, classes))

    def of_samples(self, counts: np.ndarray) -> np.ndarray:
        """Members (b, K) in samples of counts (b, groups)."""
        if counts is not self.counts:
            self.counts, self.found = counts, weighted_sums(counts, self.sums).astype(np.float64)
        return self.found


class Decisions(Statistic):
    """What the predicted classes alone tell: accuracy, precision, recall, F1 and their like.

    sums : (groups, 2K) right messages of each class, unweighted, and messages wrongly assigned to it.
    """

    def __init__(self, scored: LabelledScores, members: ClassSupport | None = None) -> None:
        classes = len(scored.names)
        predicted = scored.logits.argmax(axis=1)
        weights = scored.class_weights[scored.labels]
        right = predicted == scored.labels
        columns = ((scored.labels, right.astype(np.float64)), (predicted, weights * ~right))
        self.members = members or ClassSupport(scored.labels, scored.groups, classes)
        self.class_weights = scored.class_weights
        self.names = scored.names
        self.sums = stack_columns([sums_of_cells(scored.groups, column, classes, values) for column, values in columns])
        self.trials = {"accuracy": float(len(self.sums))}
        for label, name in enumerate(scored.names):
            of_class = self.members.sums[:, label] > 0
            assigned = (self.sums[:, label] > 0) | (self.sums[:, classes + label] > 0)
            self.trials |= {
                f"{name}.recall": self.members.groups_of[label],
                f"{name}.precision": float(np.count_nonzero(assigned)),
                f"{name}.f1": float(np.count_nonzero(of_class | assigned)),
                f"{name}.false_positive_rate": self.members.groups_of_others[label],
            }

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        right, wrong = np.split(sums, 2, axis=1)
        hits, support = right * self.class_weights, self.members.of_samples(counts) * self.class_weights
        assigned = hits + wrong
        total = support.sum(axis=1)
        precision, recall = safe_ratio(hits, assigned), safe_ratio(hits, support)
        false_positives = safe_ratio(wrong, total[:, None] - support)
        f1 = safe_ratio(2 * hits, support + assigned)
        # A class that a sample holds nothing of says nothing.
        seen = support + assigned > 0
        correct = hits.sum(axis=1)
        shares = [safe_ratio(each, total[:, None]) for each in (assigned, support)]
        covariance = safe_ratio(correct, total) - (shares[0] * shares[1]).sum(axis=1)
        # Of one class only nothing but rounding is left.
        variances = [each * (each > ROUNDING) for each in (1 - (share**2).sum(axis=1) for share in shares)]
        spread = np.sqrt(variances[0] * variances[1])
        present = support > 0
        values = {
            "accuracy": safe_ratio(correct, total),
            "balanced_accuracy": safe_ratio((recall * present).sum(axis=1), present.sum(axis=1)),
            "macro_f1": safe_ratio(f1.sum(axis=1), seen.sum(axis=1)),
            "weighted_f1": safe_ratio((f1 * support).sum(axis=1), total),
            "mcc": np.clip(safe_ratio(covariance, spread), -1, 1),
        }
        for label, name in enumerate(self.names):
            values |= {
                f"{name}.precision": precision[:, label],
                f"{name}.recall": recall[:, label],
                f"{name}.f1": f1[:, label],
                f"{name}.support": support[:, label],
                f"{name}.share": safe_ratio(assigned[:, label], total),
                f"{name}.false_positive_rate": false_positives[:, label],
            }
        return values


class Probabilities(Statistic):
    """What the posteriors tell: log loss, Brier score, calibration error, mean probability of each class.

    sums : (groups, 2 + K + bins) log loss, Brier score, posteriors, confidence less accuracy by bin.
    """

    def __init__(self, scored: LabelledScores, members: ClassSupport | None = None) -> None:
        rows = np.arange(len(scored.labels))
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        posterior = np.exp(log_posterior)
        predicted = scored.logits.argmax(axis=1)
        truth = np.eye(len(scored.names))[scored.labels]
        confidence = posterior[rows, predicted]
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        own = -log_posterior[rows, scored.labels], ((posterior - truth) ** 2).sum(axis=1), *posterior.T
        weights = scored.class_weights[scored.labels]
        columns = [sums_of_cells(scored.groups, np.zeros_like(rows), 1, weights * each) for each in own]
        gap = sums_of_cells(scored.groups, bins, CALIBRATION_BINS, weights * (confidence - (predicted == scored.labels)))
        self.names = scored.names
        self.members = members or ClassSupport(scored.labels, scored.groups, len(scored.names))
        self.class_weights = scored.class_weights
        self.sums = stack_columns([*columns, gap])

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        log_loss, brier, posterior, gap = np.split(sums, [1, 2, 2 + len(self.names)], axis=1)
        total = (self.members.of_samples(counts) @ self.class_weights)[:, None]
        means = safe_ratio(posterior, total)
        return {
            "log_loss": safe_ratio(log_loss, total)[:, 0],
            "brier": safe_ratio(brier, total)[:, 0],
            "ece": safe_ratio(np.abs(gap).sum(axis=1), total[:, 0]),
            **{f"{name}.mean_probability": means[:, label] for label, name in enumerate(self.names)},
        }


# Weights (b, bins) of a class and of the rest at each score, then of both at the scores from there to the class's end.
Sides = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class ScoreOrder:
    """The order of the messages by the scores of each class: weights of the class and of the rest in bins of equal score.

    Of two classes the second's bins serve both, the first's scores being the second's reversed; the weights are then left out,
    and a correction to another prior keeps the order.
    """

    def __init__(self, scored: LabelledScores) -> None:
        log_posterior = log_softmax(scored.logits.astype(np.float64), axis=1)
        two = len(scored.names) == 2
        counted = replace(scored, class_weights=np.ones(2)) if two else scored
        self.binned = []
        for label in [1] if two else range(len(scored.names)):
            sides = (scored.labels == label, scored.labels != label)
            bins = score_bins(one_vs_rest(log_posterior, label), sides if two else sides[:1])
            width = int(bins.max()) + 1
            self.binned.append([counted.of_groups(indicator(bins, width, side.astype(np.float64))) for side in sides])
        self.counts: np.ndarray | None = None
        self.sides: list[Sides] = []

    def of_samples(self, counts: np.ndarray) -> list[Sides]:
        """The sides of each class in samples of counts (b, groups); the last answer is kept."""
        if counts is not self.counts:
            self.counts, self.sides = counts, []
            for binned in self.binned:
                positive, negative = (np.ascontiguousarray(weighted_sums(counts, side)) for side in binned)
                self.sides.append((positive, negative, at_or_above(positive), at_or_above(negative)))
        return self.sides


class Ranking(Statistic):
    """How well scores order the messages: average precision and the area under the ROC curve of each class.

    `order` : that of the same scores, where it is known.
    """

    def __init__(self, scored: LabelledScores, order: ScoreOrder | None = None) -> None:
        self.names = scored.names
        self.sums = np.empty((int(scored.groups.max()) + 1, 0))
        self.order = order or ScoreOrder(scored)
        self.class_weights = scored.class_weights

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        sides = self.order.of_samples(counts)
        weights = [(1.0, 1.0)] * len(sides)
        if len(self.names) == 2:
            first, second = map(float, self.class_weights)
            [(positive, negative, positive_above, negative_above)] = sides
            # From the other end: what lies at or below.
            positive_below, negative_below = (
                above[:, :1] - above + at for at, above in ((positive, positive_above), (negative, negative_above))
            )
            sides = [(negative, positive, negative_below, positive_below), *sides]
            weights = [(first, second), (second, first)]
        values = {}
        for name, side, (own, rest) in zip(self.names, sides, weights, strict=True):
            values[f"{name}.pr_auc"], values[f"{name}.roc_auc"] = ranking_metrics(side, own, rest)
        return values


class Metrics(Statistic):
    """All metrics of one scored test set; `Metrics(scored)(counts)` gives name -> (b,)."""

    def __init__(self, scored: LabelledScores, members: ClassSupport | None = None, order: ScoreOrder | None = None) -> None:
        members = members or ClassSupport(scored.labels, scored.groups, len(scored.names))
        decisions, ranking = Decisions(scored, members), Ranking(scored, order)
        self.parts: list[Statistic] = [decisions, Probabilities(scored, members), ranking]
        self.order = ranking.order
        self.trials = decisions.trials
        self.ends = np.cumsum([part.sums.shape[1] for part in self.parts])[:-1]
        self.sums = stack_columns([part.sums for part in self.parts])
        # The same memory: of millions of messages a second copy would be gigabytes.
        for part, sums in zip(self.parts, np.split(self.sums, self.ends, axis=1), strict=True):
            part.sums = sums

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        pieces = zip(self.parts, np.split(sums, self.ends, axis=1), strict=True)
        return {name: values for part, piece in pieces for name, values in part.of_sums(piece, counts).items()}


def at_or_above(weights: np.ndarray) -> np.ndarray:
    """Weights (b, bins) at each score or above it, bins ascending.

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


# Metrics for which less is better; the last is one of each label, the share of the other classes' messages assigned to it.
LOSSES = frozenset({"log_loss", "brier", "ece", "false_positive_rate"})


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; a label may stand before its name, as in spam.f1.

    Examples
    --------
    >>> higher_is_better("spam.f1"), higher_is_better("log_loss")
    (True, False)
    """
    return metric.rpartition(".")[2] not in LOSSES


def bounds(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric can have.

    Examples
    --------
    >>> bounds("mcc"), bounds("spam.f1"), bounds("log_loss")
    ((-1.0, 1.0), (0.0, 1.0), (0.0, inf))
    """
    if metric in ("log_loss", "brier") or metric.endswith(".support"):
        return 0.0, np.inf
    return (-1.0 if metric == "mcc" else 0.0), 1.0


def f1_of_jaccard(jaccard: float) -> float:
    """F1 from the share of messages that are both of a class and called so among those that are either.

    Source: Hand, Christen and Kirielle, F*: an interpretable transformation of the F-measure (2021).

    Examples
    --------
    >>> f1_of_jaccard(1 / 3)
    0.5
    """
    return 2 * jaccard / (1 + jaccard)


def metric_names(labels: Sequence[str]) -> list[str]:
    """Names of all metrics of these labels, in the order of a table.

    Examples
    --------
    >>> metric_names(["ham", "spam"])[6:10]
    ['brier', 'ece', 'ham.precision', 'ham.recall']
    """
    overall = ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc", "log_loss", "brier", "ece"]
    per_class = [
        "precision",
        "recall",
        "f1",
        "support",
        "pr_auc",
        "roc_auc",
        "mean_probability",
        "share",
        "false_positive_rate",
    ]
    return overall + [f"{label}.{metric}" for label in labels for metric in per_class]


def check_metric(name: str, metric: str, labels: Sequence[str]) -> None:
    """Raise UserError for a metric that these labels do not have; `name` says which setting names it.

    Examples
    --------
    >>> check_metric("select.metric", "spam.f", ["ham", "spam"])
    Traceback (most recent call last):
    ballast.exceptions.UserError: select.metric: ... did you mean 'spam.f1'? ...
    """
    known = metric_names(labels)
    if metric not in known:
        raise UserError(f"{name}: unknown metric {metric!r}: {suggestion(metric, known)}")
