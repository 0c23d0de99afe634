"""Metrics of K classes. Names and formulas follow scikit-learn; a ratio with a denominator of 0 is 0, as there.

Statistics take counts (b, groups): how often each group occurs in each of b samples. They return (b,) values per metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from ballast.evaluation.ranking import Ranking, ScoreOrder
from ballast.evaluation.statistic import (
    ClassSupport,
    LabelledScores,
    Statistic,
    safe_ratio,
    stack_columns,
    sums_of_cells,
)
from ballast.exceptions import UserError, suggestion

CALIBRATION_BINS = 15
# Relative error of sums in single precision.
ROUNDING = 1e-6


def macro_f1(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean F1 of the classes that occur in labels (n,), from predicted (n,) and optional weights (n,).

    Examples
    --------
    >>> round(macro_f1(predicted=np.array([0, 0, 1, 1]), labels=np.array([0, 0, 0, 1])), 3)
    0.733
    """
    classes = max(int(labels.max()), int(predicted.max())) + 1
    weights = np.ones(len(labels)) if weights is None else weights
    hits = np.bincount(labels, weights * (predicted == labels), minlength=classes)
    support, assigned = (np.bincount(column, weights, minlength=classes) for column in (labels, predicted))
    return float(safe_ratio(2 * hits, support + assigned)[support > 0].mean())


class Decisions(Statistic):
    """Metrics of predicted classes: accuracy, precision, recall, F1 and others.

    sums : (groups, 2K) correct messages of each class, unweighted, and messages wrongly assigned to it.
    """

    def __init__(self, scored: LabelledScores, members: ClassSupport | None = None) -> None:
        classes = len(scored.names)
        predicted = scored.logits.argmax(axis=1)
        weights = scored.class_weights[scored.labels]
        correct = predicted == scored.labels
        columns = ((scored.labels, correct.astype(np.float64)), (predicted, weights * ~correct))
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
        correct, wrong = np.split(sums, 2, axis=1)
        hits, support = correct * self.class_weights, self.members.in_samples(counts) * self.class_weights
        assigned = hits + wrong
        total = support.sum(axis=1)
        precision, recall = safe_ratio(hits, assigned), safe_ratio(hits, support)
        false_positives = safe_ratio(wrong, total[:, None] - support)
        f1 = safe_ratio(2 * hits, support + assigned)
        # A class that is neither present nor predicted in a sample does not count.
        seen = support + assigned > 0
        total_hits = hits.sum(axis=1)
        shares = [safe_ratio(weight, total[:, None]) for weight in (assigned, support)]
        covariance = safe_ratio(total_hits, total) - (shares[0] * shares[1]).sum(axis=1)
        # With a single class, only rounding errors are left.
        variances = [variance * (variance > ROUNDING) for variance in (1 - (share**2).sum(axis=1) for share in shares)]
        spread = np.sqrt(variances[0] * variances[1])
        present = support > 0
        values = {
            "accuracy": safe_ratio(total_hits, total),
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
    """Metrics of posteriors: log loss, Brier score, calibration error, mean probability of each class.

    sums : (groups, 2 + K + bins) log loss, Brier score, posteriors, confidence minus accuracy by bin.
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
        columns = [sums_of_cells(scored.groups, np.zeros_like(rows), 1, weights * column) for column in own]
        gap = sums_of_cells(scored.groups, bins, CALIBRATION_BINS, weights * (confidence - (predicted == scored.labels)))
        self.names = scored.names
        self.members = members or ClassSupport(scored.labels, scored.groups, len(scored.names))
        self.class_weights = scored.class_weights
        self.sums = stack_columns([*columns, gap])

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        log_loss, brier, posterior, gap = np.split(sums, [1, 2, 2 + len(self.names)], axis=1)
        total = (self.members.in_samples(counts) @ self.class_weights)[:, None]
        means = safe_ratio(posterior, total)
        return {
            "log_loss": safe_ratio(log_loss, total)[:, 0],
            "brier": safe_ratio(brier, total)[:, 0],
            "ece": safe_ratio(np.abs(gap).sum(axis=1), total[:, 0]),
            **{f"{name}.mean_probability": means[:, label] for label, name in enumerate(self.names)},
        }


class Metrics(Statistic):
    """All metrics of a test set: `Metrics(scores)(counts)` returns name -> (b,).

    members, order : class support and score order of the same messages, if already computed.

    Examples
    --------
    >>> labels, logits = np.array([0, 0, 1]), np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> test = LabelledScores(["ham", "spam"], labels, logits, groups=np.arange(3), class_weights=np.ones(2))
    >>> values = Metrics(test)(np.ones((1, 3)))
    >>> {name: round(float(values[name][0]), 3) for name in ("accuracy", "spam.precision", "spam.pr_auc")}
    {'accuracy': 0.667, 'spam.precision': 0.5, 'spam.pr_auc': 1.0}
    """

    def __init__(self, scored: LabelledScores, members: ClassSupport | None = None, order: ScoreOrder | None = None) -> None:
        members = members or ClassSupport(scored.labels, scored.groups, len(scored.names))
        decisions, ranking = Decisions(scored, members), Ranking(scored, order)
        self.parts: list[Statistic] = [decisions, Probabilities(scored, members), ranking]
        self.order = ranking.order
        self.trials = decisions.trials
        self.ends = np.cumsum([part.sums.shape[1] for part in self.parts])[:-1]
        self.sums = stack_columns([part.sums for part in self.parts])
        # Views: for millions of messages a copy would take gigabytes.
        for part, sums in zip(self.parts, np.split(self.sums, self.ends, axis=1), strict=True):
            part.sums = sums

    def of_sums(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        pieces = zip(self.parts, np.split(sums, self.ends, axis=1), strict=True)
        return {name: values for part, piece in pieces for name, values in part.of_sums(piece, counts).items()}


# Metrics for which less is better. The last one exists for each label.
LOSSES = frozenset({"log_loss", "brier", "ece", "false_positive_rate"})


def higher_is_better(metric: str) -> bool:
    """Whether a higher value of a metric is better. The name may have a label in front, as in spam.f1.

    Examples
    --------
    >>> higher_is_better("spam.f1"), higher_is_better("log_loss")
    (True, False)
    """
    return metric.rpartition(".")[2] not in LOSSES


def bounds(metric: str) -> tuple[float, float]:
    """The smallest and the largest possible value of a metric.

    Examples
    --------
    >>> bounds("mcc"), bounds("spam.f1"), bounds("log_loss")
    ((-1.0, 1.0), (0.0, 1.0), (0.0, inf))
    """
    if metric in ("log_loss", "brier") or metric.endswith(".support"):
        return 0.0, np.inf
    return (-1.0 if metric == "mcc" else 0.0), 1.0


def f1_of_jaccard(jaccard: float) -> float:
    """F1 from the Jaccard index: messages of a class that are predicted as such, among those of the class or predicted as such.

    Source: Hand, Christen and Kirielle, F*: an interpretable transformation of the F-measure (2021).

    Examples
    --------
    >>> f1_of_jaccard(1 / 3)
    0.5
    """
    return 2 * jaccard / (1 + jaccard)


def metric_names(labels: Sequence[str]) -> list[str]:
    """Names of all metrics for these labels, in the order of a table.

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
    """Raise UserError for an unknown metric. `name` is the argument in the message.

    Examples
    --------
    >>> check_metric("metric", "spam.f", ["ham", "spam"])
    Traceback (most recent call last):
    ballast.exceptions.UserError: metric: ... did you mean 'spam.f1'? ...
    """
    valid = metric_names(labels)
    if metric not in valid:
        raise UserError(f"{name}: unknown metric {metric!r}: {suggestion(metric, valid)}")
