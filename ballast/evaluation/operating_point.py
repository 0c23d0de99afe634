"""Operating points: which class a message is assigned to, given its posterior. They are chosen on validation.

Every rule is a cost matrix (K, K), costs[true, predicted]; the decision is the class of least expected cost. Decisions
argmax p_k w_k with class weights w (K,) correspond to a cost of w_true for every mistake.

Source: Elkan, The Foundations of Cost-Sensitive Learning (2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from ballast.evaluation.statistic import safe_ratio
from ballast.exceptions import UserError, suggestion

ROUNDING = 1e-9
# A budget is a number of messages per this many messages of the other classes.
BUDGET_UNIT = 10_000
# Larger log odds would give an infinite weight.
MAXIMUM_LOG_ODDS = 500.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an operating point is chosen.

    kind : f1 and macro_f1 maximise that metric; cost uses `costs`; precision and budget maximise the recall of the label
        under a limit.
    label : class index for f1, precision and budget.
    costs : (K, K) for cost.
    limit : lowest precision, or highest number of messages assigned to the label per BUDGET_UNIT messages of other classes.
    """

    kind: Literal["f1", "macro_f1", "cost", "precision", "budget"] = "macro_f1"
    label: int = 0
    costs: np.ndarray | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Costs (K, K) to decide by, and whether the rule's limit is met on validation."""

    costs: np.ndarray
    met: bool


def expected_costs(posteriors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Expected cost (n, K) of assigning each message to each class: posteriors (n, K), costs (K, K).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    >>> expected_costs(np.array([[0.8, 0.2]]), costs)
    array([[1. , 0.8]])
    """
    return posteriors @ costs


def decide(posteriors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The class (n,) of least expected cost: posteriors (n, K), costs (K, K). The first class wins ties.

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    >>> decide(np.array([[0.8, 0.2], [0.9, 0.1]]), costs)
    array([1, 0])
    """
    return expected_costs(posteriors, costs).argmin(axis=1)


def weights_to_costs(weights: np.ndarray) -> np.ndarray:
    """Costs (K, K) with decisions argmax p_k w_k: a mistake costs the weight (K,) of the true class.

    Examples
    --------
    >>> weights_to_costs(np.array([1.0, 5.0]))
    array([[0., 1.],
           [5., 0.]])
    """
    costs = np.repeat(weights[:, None], len(weights), axis=1)
    np.fill_diagonal(costs, 0)
    return costs


def cost_matrix(costs: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> np.ndarray:
    """Costs (K, K) from {true label: {predicted label: cost}}. The cost of a correct decision defaults to 0.

    Raises UserError with the label or the pair that is wrong.

    Examples
    --------
    >>> cost_matrix({"ham": {"spam": 1.0}, "spam": {"ham": 5.0}}, ["ham", "spam"])
    array([[0., 1.],
           [5., 0.]])
    """
    for name in [*costs, *(predicted for row in costs.values() for predicted in row)]:
        if name not in labels:
            raise UserError(f"names the label {name!r}: {suggestion(name, labels)}")
    matrix = np.zeros((len(labels), len(labels)))
    for row, true in enumerate(labels):
        for column, predicted in enumerate(labels):
            cost = costs.get(true, {}).get(predicted, 0 if row == column else None)
            if cost is None:
                raise UserError(f"misses the cost of predicting {predicted!r} for {true!r} (costs[true][predicted])")
            if not (np.isfinite(cost) and cost >= 0):
                raise UserError(f"the cost of predicting {predicted!r} for {true!r} must be at least 0, not {cost!r}")
            matrix[row, column] = cost
    if not (matrix > np.diag(matrix)[:, None]).any():
        raise UserError("no mistake costs more than the correct decision; raise the cost of a mistake")
    return matrix


def named_costs(costs: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Costs (K, K) as {true label: {predicted label: cost}}.

    Examples
    --------
    >>> named_costs(np.array([[0.0, 1.0], [5.0, 0.0]]), ["ham", "spam"])
    {'ham': {'ham': 0.0, 'spam': 1.0}, 'spam': {'ham': 5.0, 'spam': 0.0}}
    """
    return {true: dict(zip(labels, map(float, row), strict=True)) for true, row in zip(labels, costs, strict=True)}


def threshold(costs: np.ndarray, label: int) -> float:
    """The threshold on the posterior of one of two classes that costs (2, 2) imply (Elkan 2001, equation 2).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [4.0, 0.0]])
    >>> threshold(costs, label=1)
    0.2
    """
    other = 1 - label
    false_alarm, miss = costs[other, label] - costs[other, other], costs[label, other] - costs[label, label]
    # If correct decisions cost more than mistakes, the class is always or never predicted.
    return float(np.clip(false_alarm / (false_alarm + miss), 0, 1)) if false_alarm + miss > 0 else float(false_alarm > 0)


def log_margins(log_posteriors: np.ndarray, label: int) -> np.ndarray:
    """Margin (n,) of a label: its log posterior minus the largest other one; log_posteriors (n, K).

    Examples
    --------
    >>> log_margins(np.log([[0.5, 0.3, 0.2]]), label=0).round(3)
    array([0.511])
    """
    others = np.delete(log_posteriors, label, axis=1)
    return log_posteriors[:, label] - others.max(axis=1)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """All thresholds of a ranking that assign at least one message to the class, from the fewest messages to all.

    at : (c,) threshold on the margin, halfway between two neighbours.
    hits, assigned : (c,) weight of the messages assigned correctly, and of all assigned messages.
    members, others : weight of the messages of the class, and of the others.
    """

    at: np.ndarray
    hits: np.ndarray
    assigned: np.ndarray
    members: float
    others: float

    @property
    def precision(self) -> np.ndarray:
        """Precision (c,)."""
        return safe_ratio(self.hits, self.assigned)

    @property
    def f1(self) -> np.ndarray:
        """F1 (c,)."""
        return safe_ratio(2 * self.hits, self.assigned + self.members)

    def highest_recall(self, valid: np.ndarray) -> int:
        """Index of the highest recall among valid (c,) thresholds; ties go to the one that assigns the fewest messages."""
        return int(np.where(valid, self.hits, -1.0).argmax())

    def highest_precision(self) -> int:
        """Index of the highest precision; ties go to the highest recall."""
        return int(np.lexsort((self.hits, self.precision))[-1])


def all_thresholds(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> Thresholds:
    """All thresholds on scores (n,), with positive (n,) booleans, at least one true, and weights (n,) of the messages.

    Examples
    --------
    >>> scores, positive = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    >>> thresholds = all_thresholds(scores, positive, np.ones(3))
    >>> thresholds.at, thresholds.precision.round(2)
    (array([2.5, 1.5, 0. ]), array([1.  , 0.5 , 0.67]))
    """
    order = np.argsort(-scores, kind="stable")
    falling, ordered_weights = scores[order], weights[order]
    # Scores that are equal up to rounding are assigned together.
    ends = np.flatnonzero(np.append(falling[:-1] - falling[1:] > ROUNDING, True))
    below = np.append(falling[ends[:-1] + 1], falling[-1] - 2)
    return Thresholds(
        at=(falling[ends] + below) / 2,
        hits=np.cumsum(ordered_weights * positive[order])[ends],
        assigned=np.cumsum(ordered_weights)[ends],
        members=float(weights[positive].sum()),
        others=float(weights[~positive].sum()),
    )


def choose_operating_point(rule: Rule, logits: np.ndarray, classes: np.ndarray, class_weights: np.ndarray) -> OperatingPoint:
    """Choose an operating point on validation by a rule.

    Parameters
    ----------
    logits, classes : (n, K), (n,) of validation, corrected to the production prior; every class occurs.
    class_weights : (K,) weights of the messages that give the class shares of production.

    Notes
    -----
    F1, precision and budget vary one number, the weight of the label against the rest. With two classes this covers all
    thresholds. If no threshold meets the limit, the one of highest precision is chosen and `met` is false: a class that is
    never predicted would meet any budget without being useful.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    >>> classes = np.array([0, 0, 1, 1])
    >>> point = choose_operating_point(Rule(kind="precision", label=1, limit=0.6), logits, classes, np.ones(2))
    >>> point.met, round(threshold(point.costs, label=1), 2)
    (True, 0.18)
    >>> decide(np.exp(logits), point.costs)
    array([0, 1, 1, 1])
    """
    if rule.kind == "cost":
        assert rule.costs is not None
        return OperatingPoint(costs=rule.costs, met=True)
    log_posteriors = log_softmax(logits, axis=1)
    if rule.kind == "macro_f1":
        offsets = macro_f1_offsets(log_posteriors, classes, class_weights)
        return OperatingPoint(costs=weights_to_costs(np.exp(np.clip(offsets, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS))), met=True)
    candidates = all_thresholds(log_margins(log_posteriors, rule.label), classes == rule.label, class_weights[classes])
    valid = np.ones(len(candidates.at), dtype=bool)
    if rule.kind == "f1":
        best = int(candidates.f1.argmax())
    else:
        assert rule.limit is not None
        excess = candidates.assigned - candidates.hits - rule.limit / BUDGET_UNIT * candidates.others
        # Tolerate rounding errors of the sums of weights.
        if rule.kind == "precision":
            valid = candidates.precision >= rule.limit - ROUNDING
        else:
            valid = excess <= ROUNDING * candidates.others
        # A threshold that assigns only wrong messages can meet a budget, but is useless.
        valid &= candidates.hits > 0
        best = candidates.highest_recall(valid) if valid.any() else candidates.highest_precision()
    weights = np.ones(logits.shape[1])
    weights[rule.label] = np.exp(np.clip(-candidates.at[best], -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS))
    return OperatingPoint(costs=weights_to_costs(weights), met=bool(valid.any()))


def macro_f1_offsets(logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Offsets (K,) of logits (n, K) that maximise the macro F1 of their argmax for labels (n,).

    Coordinate ascent: each class in turn gets the best offset, with the others fixed. With two classes this is the exact
    optimum. class_weights (K,) are the weights of the messages of each class.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> offsets = macro_f1_offsets(logits, np.array([0, 0, 1, 1]), np.ones(2))
    >>> (logits + offsets).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    classes = logits.shape[1]
    offsets = np.zeros(classes)
    weights = class_weights[labels]
    support = np.bincount(labels, weights=weights, minlength=classes)
    rows = np.arange(1, len(labels) + 1)
    for label in list(range(classes)) * sweeps if classes > 2 else [1]:
        shifted = logits + offsets
        others = np.delete(shifted, label, axis=1)
        rival = others.argmax(axis=1)
        rival += rival >= label
        needed = others.max(axis=1) - shifted[:, label]
        order = np.argsort(needed, kind="stable")
        # Row k: what each class is assigned, and correctly so, after the first k of these messages have moved to the class.
        moved = np.zeros((len(labels) + 1, classes))
        moved[rows, rival[order]] = weights[order]
        correct = moved.copy()
        correct[1:][labels[order] != rival[order]] = 0
        assigned = np.bincount(rival, weights=weights, minlength=classes) - moved.cumsum(axis=0)
        hits = np.bincount(rival, weights=weights * (labels == rival), minlength=classes) - correct.cumsum(axis=0)
        assigned[:, label] = np.concatenate([[0], weights[order].cumsum()])
        hits[:, label] = np.concatenate([[0], (weights * (labels == label))[order].cumsum()])
        macro = safe_ratio(2 * hits, assigned + support).mean(axis=1)
        ends = np.concatenate([needed[order], [np.inf]])
        # Offsets that are equal up to rounding move messages together, so only the last of them is a candidate.
        macro[1:][np.diff(ends) < ROUNDING] = -1
        now = int((needed <= 0).sum())
        best = int(macro.argmax())
        if macro[best] > macro[now] or (np.abs(needed) < ROUNDING).any():
            low = needed[order[best - 1]] if best else needed[order[0]] - 2
            high = ends[best] if np.isfinite(ends[best]) else low + 2
            offsets[label] += (low + high) / 2
    return offsets
