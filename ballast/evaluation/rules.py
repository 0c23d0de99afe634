"""Rules of operating points: which threshold is the best, and which thresholds satisfy a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ballast.evaluation.review import Review
from ballast.evaluation.thresholds import ROUNDING, Thresholds

# A budget is a number of messages per this many messages of the other classes.
BUDGET_UNIT = 10_000

Kind = Literal["f1", "f_beta", "macro_f1", "cost", "precision", "recall", "budget"]
# Rules with a limit that production can break.
LIMITED: tuple[Kind, ...] = ("precision", "recall", "budget")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an operating point is chosen.

    kind : f1, f_beta and macro_f1 maximise that metric; cost uses `costs`; precision and budget maximise the recall of the
        label under a limit, recall maximises its precision.
    label : class index; macro_f1 and cost are for all classes.
    costs : (K, K) for cost.
    limit : lowest precision or recall, or highest number of messages assigned to the label per BUDGET_UNIT messages of other
        classes.
    beta : for f_beta, how many times as much recall counts as precision.
    guarantee : confidence with which the limit must hold in production, such as 0.95; None if it must only hold on the
        held-out messages.
    review : which messages people decide; None for no message.
    """

    kind: Kind = "macro_f1"
    label: int = 0
    costs: np.ndarray | None = None
    limit: float | None = None
    beta: float = 1.0
    guarantee: float | None = None
    review: Review | None = None

    @property
    def of_one_class(self) -> bool:
        """Whether the rule varies the weight of one class, its label."""
        return self.kind not in ("macro_f1", "cost")


def satisfies_limit(rule: Rule, candidates: Thresholds) -> np.ndarray:
    """Whether each threshold (..., c) satisfies the limit of a rule on these messages; true if the rule has none.

    Examples
    --------
    >>> from ballast.evaluation.thresholds import all_thresholds
    >>> candidates = all_thresholds(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), np.ones(3))
    >>> satisfies_limit(Rule(kind="precision", limit=0.6), candidates)
    array([ True, False,  True])
    """
    if rule.limit is None:
        return np.ones(candidates.hits.shape, dtype=bool)
    # Tolerate rounding errors of the sums of weights.
    if rule.kind == "precision":
        valid = candidates.precision >= rule.limit - ROUNDING
    elif rule.kind == "recall":
        valid = candidates.recall >= rule.limit - ROUNDING
    else:
        valid = candidates.false_positive_rate <= rule.limit / BUDGET_UNIT + ROUNDING
    # A threshold that assigns only wrong messages can meet a budget, but is useless.
    return valid & (candidates.hits > 0)


def best_threshold(rule: Rule, candidates: Thresholds, valid: np.ndarray) -> np.ndarray:
    """Index (...,) of the best threshold of a rule among the valid ones (..., c); of the highest precision if none is valid.

    Ties go to the threshold that assigns the fewest messages, except that a tie in precision goes to the highest recall.

    Examples
    --------
    >>> from ballast.evaluation.thresholds import all_thresholds
    >>> candidates = all_thresholds(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), np.ones(3))
    >>> valid = np.ones(3, dtype=bool)
    >>> int(best_threshold(Rule(kind="f1"), candidates, valid)), int(best_threshold(Rule(kind="recall"), candidates, valid))
    (2, 0)
    """
    precision = highest(candidates.precision, candidates.hits, np.ones_like(valid))
    if rule.kind == "recall":
        best = highest(candidates.precision, candidates.hits, valid)
    else:
        goal = {"f1": candidates.f_beta, "macro_f1": candidates.macro_f1}.get(rule.kind)
        values = candidates.f_beta(rule.beta) if rule.kind == "f_beta" else candidates.recall if goal is None else goal()
        best = highest(values, -candidates.assigned, valid)
    return np.where(valid.any(axis=-1), best, precision)


def highest(values: np.ndarray, ties: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Index (...,) of the highest of the valid values (..., c); the highest of `ties` decides between equal values.

    Examples
    --------
    >>> int(highest(np.array([0.5, 1.0, 1.0]), np.array([9, 1, 2]), np.array([True, True, True])))
    2
    """
    valid_values = np.where(valid, values, -np.inf)
    best = valid_values >= valid_values.max(axis=-1, keepdims=True) - ROUNDING
    return np.where(best, ties, -np.inf).argmax(axis=-1)
