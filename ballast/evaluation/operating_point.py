"""Operating points: which class a message is assigned to, given its posterior. They are chosen on held-out messages.

Every rule is a cost matrix (K, K), costs[true, predicted]; the decision is the class of least expected cost.

Source: Elkan, The Foundations of Cost-Sensitive Learning (2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from ballast.evaluation.candidates import Candidates, candidates_of, ranking_label
from ballast.evaluation.costs import cost_matrix, decide, expected_costs, named_costs, threshold, weights_to_costs
from ballast.evaluation.guarantee import Guarantee, certified, count_units, limit_confidence, units_needed
from ballast.evaluation.review import Review, ReviewBand, fit_review, review_as_json
from ballast.evaluation.rules import BUDGET_UNIT, LIMITED, Rule, best_threshold, satisfies_limit
from ballast.evaluation.thresholds import log_margins, macro_f1_offsets

__all__ = [
    "BUDGET_UNIT",
    "OperatingPoint",
    "Rule",
    "choose_operating_point",
    "cost_matrix",
    "decide",
    "expected_costs",
    "log_margins",
    "macro_f1_offsets",
    "named_costs",
    "point_as_json",
    "rule_from_json",
    "threshold",
    "weights_to_costs",
]

# Larger log odds would give an infinite weight.
MAXIMUM_LOG_ODDS = 500.0


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Costs (K, K) to decide by, and how far they can be relied on.

    met : whether the limit of the rule is met: guaranteed, if the rule asks for it, otherwise on the held-out messages.
    guarantee : None if the rule asks for none.
    review : the messages that people decide; None if the rule asks for none.
    probability : the confidence that the limit holds in production, by an exact binomial test; None without a limit.
    threshold : value, low and high of the threshold on the posterior of one of two classes; None with more classes and before
        `with_uncertainty`.
    """

    costs: np.ndarray
    met: bool
    guarantee: Guarantee | None = None
    review: ReviewBand | None = None
    probability: float | None = None
    threshold: Mapping[str, float] | None = None


def choose_operating_point(
    rule: Rule, logits: np.ndarray, classes: np.ndarray, class_weights: np.ndarray, groups: np.ndarray | None = None
) -> OperatingPoint:
    """Choose an operating point on held-out messages by a rule.

    Parameters
    ----------
    logits, classes : (n, K), (n,) of held-out messages, corrected to the production prior; every class occurs.
    class_weights : (K,) weights of the messages that give the class shares of production.
    groups : (n,) of near duplicates, for a guarantee; None if all messages are independent.

    Notes
    -----
    Rules of one class vary one number, the weight of the label against the rest. With two classes this covers all thresholds.
    If no threshold meets the limit, the one of highest precision is chosen and `met` is false: a class that is never predicted
    would meet any budget without being useful. If a limit cannot be guaranteed, the threshold is the one without a guarantee,
    and `met` is false.

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
    chosen = Choice(met=True)
    if rule.kind == "cost":
        assert rule.costs is not None
        costs = rule.costs
    elif rule.kind == "macro_f1":
        offsets = macro_f1_offsets(log_softmax(logits, axis=1), classes, class_weights)
        costs = weights_to_costs(np.exp(np.clip(offsets, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)))
    else:
        chosen = choose_threshold(rule, candidates_of(rule, logits, classes, class_weights, groups))
        weights = np.ones(logits.shape[1])
        weights[rule.label] = np.exp(np.clip(-chosen.at, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS))
        costs = weights_to_costs(weights)
    review = None
    if rule.review is not None:
        review = fit_review(rule.review, softmax(logits, axis=1), costs, class_weights[classes])
    return OperatingPoint(
        costs=costs, met=chosen.met, guarantee=chosen.guarantee, probability=chosen.probability, review=review
    )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A chosen margin threshold `at`, and how far its limit can be relied on, as in `OperatingPoint`."""

    met: bool
    at: float = 0.0
    guarantee: Guarantee | None = None
    probability: float | None = None


def choose_threshold(rule: Rule, candidates: Candidates) -> Choice:
    """Choose the margin threshold of a rule of one class.

    Examples
    --------
    >>> rule, logits = Rule(kind="f1", label=1), np.array([[0, -1.0], [0, 1.0]])
    >>> choose_threshold(rule, candidates_of(rule, logits, np.array([0, 1]), np.ones(2), None)).at
    0.0
    """
    thresholds = candidates.thresholds()
    valid = satisfies_limit(rule, thresholds)
    met = bool(valid.any())
    if rule.kind not in LIMITED:
        return Choice(at=float(thresholds.at[best_threshold(rule, thresholds, valid)]), met=met)
    units, guarantee = candidates.units(), None
    if rule.guarantee is not None:
        counted = count_units(units, thresholds.at, np.ones(len(units.scores)))
        safe = certified(rule, units, counted)
        met = bool(safe.any())
        guarantee = Guarantee(
            confidence=rule.guarantee,
            holds=met,
            units=int(counted.others if rule.kind == "budget" else counted.members),
            needed=None if met else units_needed(rule, units, counted),
            of_label=rule.kind != "budget",
        )
        valid = safe if met else valid
    at = float(thresholds.at[best_threshold(rule, thresholds, valid)])
    return Choice(at=at, met=met, guarantee=guarantee, probability=limit_confidence(rule, units, at))


def point_as_json(point: OperatingPoint, rule: Rule, names: Sequence[str]) -> dict[str, Any]:
    """An operating point by label name, for JSON.

    Examples
    --------
    >>> point = OperatingPoint(costs=1 - np.eye(2), met=True)
    >>> sorted(point_as_json(point, Rule(), ["ham", "spam"]))
    ['beta', 'costs', 'guarantee', 'label', 'limit', 'met', 'probability', 'review', 'rule', 'threshold']
    """
    guarantee = point.guarantee
    return {
        "rule": rule.kind,
        "label": names[rule.label] if rule.of_one_class else None,
        "limit": rule.limit,
        "beta": rule.beta if rule.kind == "f_beta" else None,
        "met": point.met,
        "costs": named_costs(point.costs, names),
        "guarantee": None
        if guarantee is None
        else {
            "confidence": guarantee.confidence,
            "holds": guarantee.holds,
            "units": guarantee.units,
            "needed": guarantee.needed,
            "of_label": guarantee.of_label,
        },
        "probability": point.probability,
        "threshold": None if point.threshold is None else dict(point.threshold),
        "review": review_as_json(point.review, point.costs, ranking_label(rule, len(names)) or 0),
    }


def rule_from_json(point: Mapping[str, Any], names: Sequence[str]) -> Rule:
    """The rule of an operating point that `point_as_json` wrote. Points of earlier releases lack some keys.

    Examples
    --------
    >>> rule = Rule(kind="recall", label=1, limit=0.9, guarantee=0.95)
    >>> guarantee = Guarantee(confidence=0.95, holds=True, units=100, needed=None, of_label=True)
    >>> point = OperatingPoint(costs=1 - np.eye(2), met=True, guarantee=guarantee)
    >>> rule_from_json(point_as_json(point, rule, ["ham", "spam"]), ["ham", "spam"]) == rule
    True
    """
    guarantee, review = point.get("guarantee"), point.get("review")
    return Rule(
        kind=point["rule"],
        label=0 if point["label"] is None else names.index(point["label"]),
        costs=cost_matrix(point["costs"], names) if point["rule"] == "cost" else None,
        limit=point["limit"],
        beta=point.get("beta") or 1.0,
        guarantee=None if guarantee is None else guarantee["confidence"],
        review=None if review is None else Review(kind=review["kind"], limit=review["limit"]),
    )
