"""Operating points: which class a message is assigned to, given its posterior; chosen on validation only.

Every rule comes down to a cost matrix (K, K), costs[true, predicted], and the decision is the class of least expected cost.
Weights w (K,) of the classes, argmax p_k w_k, are the costs w_true of every mistake.

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
# A budget counts messages of the other classes by this many.
BUDGET_UNIT = 10_000
# Log odds beyond this are one: their weight would not be a finite number.
MAXIMUM_LOG_ODDS = 500.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an operating point is chosen.

    kind : f1 and macro_f1 take the highest; cost takes `costs` as they are; precision and budget take the highest recall of the
        label that keeps the limit.
    label : index of the class that f1, precision and budget are about.
    costs : (K, K), of the rule cost.
    limit : the least precision; or the most messages of PER other ones that may be assigned to the label.
    """

    kind: Literal["f1", "macro_f1", "cost", "precision", "budget"] = "macro_f1"
    label: int = 0
    costs: np.ndarray | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Costs (K, K) to decide by, and whether they keep the rule's limit on validation."""

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
    """The class (n,) of least expected cost, the first of equals: posteriors (n, K), costs (K, K).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    >>> decide(np.array([[0.8, 0.2], [0.9, 0.1]]), costs)
    array([1, 0])
    """
    return expected_costs(posteriors, costs).argmin(axis=1)


def weights_to_costs(weights: np.ndarray) -> np.ndarray:
    """Costs (K, K) whose decisions are argmax p_k w_k: a mistake costs the weight (K,) of the class that it misses.

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
    """Costs (K, K) from {true label: {predicted label: cost}}; the cost of a right answer may be left out and is then 0.

    Raises UserError that names the label or the pair at fault.

    Examples
    --------
    >>> cost_matrix({"ham": {"spam": 1.0}, "spam": {"ham": 5.0}}, ["ham", "spam"])
    array([[0., 1.],
           [5., 0.]])
    """
    for name in [*costs, *(predicted for row in costs.values() for predicted in row)]:
        if name not in labels:
            raise UserError(f"names the label {name!r}: {suggestion(name, labels)}")
    made = np.zeros((len(labels), len(labels)))
    for at, true in enumerate(labels):
        for to, predicted in enumerate(labels):
            found = costs.get(true, {}).get(predicted, 0 if at == to else None)
            if found is None:
                raise UserError(f"misses the cost of calling {true!r} {predicted!r} (costs[true][predicted])")
            if not (np.isfinite(found) and found >= 0):
                raise UserError(f"the cost of calling {true!r} {predicted!r} must be a number of at least 0, not {found!r}")
            made[at, to] = found
    if not (made > np.diag(made)[:, None]).any():
        raise UserError("no mistake costs more than the right answer, so nothing can be decided by them")
    return made


def named_costs(costs: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Costs (K, K) as {true label: {predicted label: cost}}.

    Examples
    --------
    >>> named_costs(np.array([[0.0, 1.0], [5.0, 0.0]]), ["ham", "spam"])
    {'ham': {'ham': 0.0, 'spam': 1.0}, 'spam': {'ham': 5.0, 'spam': 0.0}}
    """
    return {true: dict(zip(labels, map(float, row), strict=True)) for true, row in zip(labels, costs, strict=True)}


def threshold(costs: np.ndarray, label: int) -> float:
    """The posterior of one of two classes above which it is decided for by costs (2, 2) (Elkan 2001, equation 2).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [4.0, 0.0]])
    >>> threshold(costs, label=1)
    0.2
    """
    other = 1 - label
    false_alarm, miss = costs[other, label] - costs[other, other], costs[label, other] - costs[label, label]
    # With right answers that cost more than mistakes a class is always, or never, decided for.
    return float(np.clip(false_alarm / (false_alarm + miss), 0, 1)) if false_alarm + miss > 0 else float(false_alarm > 0)


def log_margins(log_posteriors: np.ndarray, label: int) -> np.ndarray:
    """By how much (n,) a label's log posterior exceeds the greatest of the others'; log_posteriors (n, K).

    Examples
    --------
    >>> log_margins(np.log([[0.5, 0.3, 0.2]]), label=0).round(3)
    array([0.511])
    """
    others = np.delete(log_posteriors, label, axis=1)
    return log_posteriors[:, label] - others.max(axis=1)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Every way to cut a ranking, each of which assigns at least one message to the class, from the fewest to all.

    at : (c,) the margin from which a message is assigned, halfway between two neighbours.
    hits, assigned : (c,) weight of the messages that are assigned rightly, and of all that are.
    members, others : weight of the class's messages and of the rest.
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

    def most_hits(self, keeps: np.ndarray) -> int:
        """Of the cuts that keep a limit (c,) the one of highest recall, and of those the one that assigns the fewest."""
        return int(np.where(keeps, self.hits, -1.0).argmax())

    def most_precise(self) -> int:
        """The cut of highest precision, and of those the one of highest recall."""
        return int(np.lexsort((self.hits, self.precision))[-1])


def all_thresholds(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> Thresholds:
    """The cuts of scores (n,) with positive (n,) booleans, one of them true, and weights (n,) of the messages.

    Examples
    --------
    >>> scores, positive = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    >>> thresholds = all_thresholds(scores, positive, np.ones(3))
    >>> thresholds.at, thresholds.precision.round(2)
    (array([2.5, 1.5, 0. ]), array([1.  , 0.5 , 0.67]))
    """
    order = np.argsort(-scores, kind="stable")
    falling, heavy = scores[order], weights[order]
    # Scores that are equal but for rounding are assigned together.
    ends = np.flatnonzero(np.append(falling[:-1] - falling[1:] > ROUNDING, True))
    below = np.append(falling[ends[:-1] + 1], falling[-1] - 2)
    return Thresholds(
        at=(falling[ends] + below) / 2,
        hits=np.cumsum(heavy * positive[order])[ends],
        assigned=np.cumsum(heavy)[ends],
        members=float(weights[positive].sum()),
        others=float(weights[~positive].sum()),
    )


def choose_operating_point(rule: Rule, logits: np.ndarray, classes: np.ndarray, class_weights: np.ndarray) -> OperatingPoint:
    """The operating point that a rule picks on validation.

    Parameters
    ----------
    logits, classes : (n, K), (n,) of validation, on the production prior; every class occurs.
    class_weights : (K,) weight of each class's messages that gives the class shares of production.

    F1, precision and budget move one number, the weight of the label against the rest; for two classes that is any threshold.
    Where no cut keeps the limit, the point is that of highest precision, and `met` says so: a class that is never assigned
    would keep any budget, and nobody would notice.

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
    found = all_thresholds(log_margins(log_posteriors, rule.label), classes == rule.label, class_weights[classes])
    keeps = np.ones(len(found.at), dtype=bool)
    if rule.kind == "f1":
        best = int(found.f1.argmax())
    else:
        assert rule.limit is not None
        over = found.assigned - found.hits - rule.limit / BUDGET_UNIT * found.others
        # Sums of weights are exact but for rounding.
        keeps = found.precision >= rule.limit - ROUNDING if rule.kind == "precision" else over <= ROUNDING * found.others
        # Who assigns the wrong messages only keeps a budget, and is of no use.
        keeps &= found.hits > 0
        best = found.most_hits(keeps) if keeps.any() else found.most_precise()
    weights = np.ones(logits.shape[1])
    weights[rule.label] = np.exp(np.clip(-found.at[best], -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS))
    return OperatingPoint(costs=weights_to_costs(weights), met=bool(keeps.any()))


def macro_f1_offsets(logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Offsets (K,) whose addition to logits (n, K) gives the decisions with the highest macro F1 for labels (n,).

    Each class in turn gets the best offset with the others fixed; class_weights (K,) are those of its messages. For two classes
    that is the exact optimum.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> offsets = macro_f1_offsets(logits, np.array([0, 0, 1, 1]), np.ones(2))
    >>> (logits + offsets).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    classes = logits.shape[1]
    offsets = np.zeros(classes)
    heavy = class_weights[labels]
    support = np.bincount(labels, weights=heavy, minlength=classes)
    rows = np.arange(1, len(labels) + 1)
    for label in list(range(classes)) * sweeps if classes > 2 else [1]:
        shifted = logits + offsets
        others = np.delete(shifted, label, axis=1)
        rival = others.argmax(axis=1)
        rival += rival >= label
        needed = others.max(axis=1) - shifted[:, label]
        order = np.argsort(needed, kind="stable")
        # After the k-th of these messages has moved to the class: what each class was assigned, and rightly so.
        moved = np.zeros((len(labels) + 1, classes))
        moved[rows, rival[order]] = heavy[order]
        right = moved.copy()
        right[1:][labels[order] != rival[order]] = 0
        assigned = np.bincount(rival, weights=heavy, minlength=classes) - moved.cumsum(axis=0)
        hits = np.bincount(rival, weights=heavy * (labels == rival), minlength=classes) - right.cumsum(axis=0)
        assigned[:, label] = np.concatenate([[0], heavy[order].cumsum()])
        hits[:, label] = np.concatenate([[0], (heavy * (labels == label))[order].cumsum()])
        macro = safe_ratio(2 * hits, assigned + support).mean(axis=1)
        ends = np.concatenate([needed[order], [np.inf]])
        # Needs that are equal but for rounding move together, so only the last of them is a choice.
        macro[1:][np.diff(ends) < ROUNDING] = -1
        now = int((needed <= 0).sum())
        best = int(macro.argmax())
        if macro[best] > macro[now] or (np.abs(needed) < ROUNDING).any():
            low = needed[order[best - 1]] if best else needed[order[0]] - 2
            high = ends[best] if np.isfinite(ends[best]) else low + 2
            offsets[label] += (low + high) / 2
    return offsets
