"""Guaranteed limits: thresholds that satisfy a precision floor, a recall floor or a budget in production with a confidence.

Each threshold has a null hypothesis, that it breaks the limit, and an exact binomial test. The tests run in a fixed sequence
until the first one fails, so the probability that any threshold before it breaks the limit is at most 1 - confidence.

Source: Angelopoulos, Bates, Candès, Jordan and Lei, Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control
(2021), section 3, with its multi-start sequences for precision; Clopper and Pearson (1934) for the binomial tails.

Units. Near duplicates are not independent, so a group of messages counts once. It counts as found only if all of its messages
of the class are assigned, and as a false alarm if any of its other messages is. The limit is then guaranteed for messages if
large groups fare no worse than small ones. The deployed model must score like the models that gave the held-out scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from ballast.evaluation.rules import BUDGET_UNIT, Rule

# Sequences of precision tests. Each starts at twice as many assigned units as the one before: one mistake among the top units
# ends the first sequence, and only that one.
STARTS = 4
# Found units below which an observed precision says little about more messages.
FEW_FOUND = 10
LARGEST_SCALE = 1e6
BISECTIONS = 30


@dataclass(frozen=True, kw_only=True)
class Units:
    """Independent units: scores (u,), positive (u,) booleans, group (u,) numbers, and mean message weights.

    weight : mean production weight of a positive unit.
    other_weight : the largest mean production weight of a unit of another class, so that no mix of classes breaks a limit.
    budget_factor : factor on a budget that allows for another mix of the other classes in production; 1 with two classes.
    """

    scores: np.ndarray
    positive: np.ndarray
    group: np.ndarray
    weight: float
    other_weight: float
    budget_factor: float


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """Whether a limit is guaranteed.

    confidence : such as 0.95; holds : whether some threshold satisfies the limit with this confidence.
    units : independent held-out units (groups of near duplicates) of the class that limits the guarantee.
    needed : how many of them would be needed at the rates observed, if `holds` is false; None if no number is enough.
    of_label : whether these are units of the label or of the other classes.
    """

    confidence: float
    holds: bool
    units: int
    needed: int | None
    of_label: bool


def independent_units(
    margins: np.ndarray, classes: np.ndarray, label: int, groups: np.ndarray, class_weights: np.ndarray
) -> Units:
    """Units of margins (n,), classes (n,) and groups (n,): the lowest margin of a group's positives, the highest of its others.

    class_weights : (K,) weights of the messages that give the class shares of production.

    Examples
    --------
    >>> units = independent_units(
    ...     np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 1, 0, 0]), 1, np.array([0, 0, 1, 1]), np.ones(2)
    ... )
    >>> units.scores, units.positive
    (array([2., 1.]), array([ True, False]))
    """
    positive = classes == label
    _, numbers = np.unique(groups, return_inverse=True)
    cells, at = np.unique(2 * numbers + positive, return_inverse=True)
    scores = np.full(len(cells), -np.inf)
    # The lowest is the highest of the negatives.
    np.maximum.at(scores, at, np.where(positive, -margins, margins))
    of_positive = cells % 2 == 1
    scores = np.where(of_positive, -scores, scores)
    others = np.delete(class_weights, label)[np.delete(np.bincount(classes, minlength=len(class_weights)), label) > 0]
    largest = float(others.max()) if len(others) else 1.0
    n_positive, n_other = int(of_positive.sum()), int((~of_positive).sum())
    mean_other = float(class_weights[classes[~positive]].mean()) if n_other else largest
    return Units(
        scores=scores,
        positive=of_positive,
        group=cells // 2,
        weight=float(class_weights[label]) * positive.sum() / max(1, n_positive),
        other_weight=largest * (~positive).sum() / max(1, n_other),
        budget_factor=mean_other / largest,
    )


@dataclass(frozen=True, kw_only=True)
class UnitCounts:
    """Units above each threshold: hits, wrong (..., c), of members, others (...,) units."""

    hits: np.ndarray
    wrong: np.ndarray
    members: np.ndarray
    others: np.ndarray


def count_units(units: Units, at: np.ndarray, counts: np.ndarray) -> UnitCounts:
    """Units above falling thresholds `at` (c,), from counts (..., u): how often each unit is drawn.

    Examples
    --------
    >>> units = independent_units(np.array([3.0, 1.0]), np.array([1, 0]), 1, np.array([0, 1]), np.ones(2))
    >>> counted = count_units(units, np.array([2.0, 0.0]), np.ones(2))
    >>> counted.hits, counted.wrong
    (array([1., 1.]), array([0., 1.]))
    """
    order = np.argsort(-units.scores, kind="stable")
    ends = np.searchsorted(-units.scores[order], -at, side="left")

    def above(drawn: np.ndarray) -> np.ndarray:
        summed = np.cumsum(drawn, axis=-1)
        return np.concatenate([np.zeros((*drawn.shape[:-1], 1)), summed], axis=-1)[..., ends]

    positive = counts * units.positive
    return UnitCounts(
        hits=above(positive[..., order]),
        wrong=above((counts - positive)[..., order]),
        members=positive.sum(axis=-1),
        others=(counts - positive).sum(axis=-1),
    )


def unit_precision(limit: float, units: Units) -> float:
    """The precision of held-out units that is as good as a precision `limit` of messages in production.

    Recall and false-positive rate are conditional on the class, so another class prior multiplies the odds of a correct
    assignment by the ratio of the weights.

    Examples
    --------
    >>> units = independent_units(np.array([3.0, 1.0]), np.array([1, 0]), 1, np.array([0, 1]), np.array([1.0, 0.25]))
    >>> round(unit_precision(0.9, units), 3)
    0.973
    """
    if limit >= 1:
        return 1.0
    odds = limit / (1 - limit) * units.other_weight / units.weight
    return float(odds / (1 + odds))


def critical_hits(trials: np.ndarray, share: float, error: float) -> np.ndarray:
    """Hits (...,) of `trials` that a share of at most `share` exceeds with a probability of at most `error`.

    Examples
    --------
    >>> critical_hits(np.array([28, 29, 100]), 0.9, 0.05)
    array([28., 28., 95.])
    """
    return np.asarray(binom.isf(error, trials, share))


def precision_starts(share: float, error: float, members: int) -> tuple[np.ndarray, float]:
    """Assigned units (s,) at which the sequences of precision tests start, and the error of each sequence.

    The first sequence starts where units without a mistake are enough. Sequences that would start beyond the number of
    positive units are useless, so a class with few units has fewer of them.

    Examples
    --------
    >>> precision_starts(0.9, 0.05, members=200), precision_starts(0.9, 0.05, members=40)
    ((array([ 39,  78, 156]), 0.016666666666666666), (array([29]), 0.05))
    """
    if share >= 1:
        return np.array([], dtype=int), error
    for count in range(STARTS, 0, -1):
        first = int(np.ceil(np.log(error / count) / np.log(share)))
        starts = first * 2 ** np.arange(count)
        if starts[-1] <= members or count == 1:
            break
    return starts, error / count


def certified(rule: Rule, units: Units, counted: UnitCounts) -> np.ndarray:
    """Whether each threshold (..., c) satisfies the limit of a rule with its confidence.

    Units found and false alarms grow as the threshold falls. So recall is tested from the lowest threshold up and a budget
    from the highest one down, and each set of passed tests is a sequence.

    Examples
    --------
    >>> margins, classes = np.arange(100.0)[::-1], np.repeat([1, 0], 50)
    >>> units = independent_units(margins, classes, 1, np.arange(100), np.ones(2))
    >>> counted = count_units(units, margins - 0.5, np.ones(100))
    >>> rule = Rule(kind="recall", label=1, limit=0.9, guarantee=0.95)
    >>> int(certified(rule, units, counted).argmax()) + 1
    49
    """
    assert rule.limit is not None and rule.guarantee is not None
    error = 1 - rule.guarantee
    if rule.kind == "recall":
        return counted.hits > critical_hits(counted.members, rule.limit, error)[..., None]
    if rule.kind == "budget":
        rate = rule.limit / BUDGET_UNIT * units.budget_factor
        return (counted.wrong < binom.ppf(error, counted.others, rate)[..., None]) & (counted.hits > 0)
    share = unit_precision(rule.limit, units)
    starts, each = precision_starts(share, error, int(units.positive.sum()))
    assigned = (counted.hits + counted.wrong).astype(np.int64)
    # Beyond this number, even all members are too few hits.
    most = int((counted.members.max() + 1) / share) + 1
    enough = critical_hits(np.arange(most + 1), share, each)
    passed = (assigned <= most) & (counted.hits > enough[np.minimum(assigned, most)])
    found = np.zeros_like(passed)
    for start in starts:
        # True from the start of the sequence to its first failure.
        found |= np.logical_and.accumulate(passed | (assigned < start), axis=-1) & (assigned >= start)
    return found


def limit_confidence(rule: Rule, units: Units, at: float) -> float:
    """The confidence that a limit holds in production at a threshold: 1 minus the p-value of its exact binomial test.

    It is not corrected for the search of the threshold.

    Examples
    --------
    >>> units = independent_units(np.arange(100.0), np.repeat([0, 1], 50), 1, np.arange(100), np.ones(2))
    >>> rule = Rule(kind="recall", label=1, limit=0.9)
    >>> [round(limit_confidence(rule, units, at), 2) for at in (50.5, 55.5)]
    [0.97, 0.23]
    """
    assert rule.limit is not None
    counted = count_units(units, np.array([at]), np.ones(len(units.scores)))
    hits, wrong = int(counted.hits[0]), int(counted.wrong[0])
    if rule.kind == "recall":
        p = binom.sf(hits - 1, counted.members, rule.limit)
    elif rule.kind == "budget":
        p = binom.cdf(wrong, counted.others, rule.limit / BUDGET_UNIT * units.budget_factor)
    else:
        p = binom.sf(hits - 1, hits + wrong, unit_precision(rule.limit, units))
    return float(1 - p)


def units_needed(rule: Rule, units: Units, counted: UnitCounts) -> int | None:
    """How many units of the class that limits the guarantee would be needed if the rates stayed as observed; None if no number.

    Thresholds that find very few units are left out, since their observed precision says little.

    Examples
    --------
    >>> margins, classes = np.arange(100.0)[::-1], np.repeat([1, 0], 50)
    >>> units = independent_units(margins, classes, 1, np.arange(100), np.ones(2))
    >>> counted = count_units(units, margins - 0.5, np.ones(100))
    >>> units_needed(Rule(kind="budget", label=1, limit=10, guarantee=0.95), units, counted)
    2995
    """
    assert rule.limit is not None and rule.guarantee is not None
    error, members, others = 1 - rule.guarantee, int(counted.members), int(counted.others)
    usable = counted.hits >= (min(FEW_FOUND, members) if rule.kind == "precision" else 1)
    # Only thresholds just below a unit of the label can be the best.
    usable &= np.diff(counted.hits, prepend=0) > 0
    hits, wrong = counted.hits[usable], counted.wrong[usable]
    limiting = others if rule.kind == "budget" else members

    def enough(scale: float) -> bool:
        if rule.kind == "recall":
            trials = np.floor(members * scale + 0.5)
            return bool(trials > critical_hits(trials, rule.limit or 0, error))
        if rule.kind == "budget":
            rate = (rule.limit or 0) / BUDGET_UNIT * units.budget_factor
            return bool((np.ceil(wrong * scale) < binom.ppf(error, np.floor(others * scale + 0.5), rate)).any())
        share = unit_precision(rule.limit or 0, units)
        starts, each = precision_starts(share, error, int(members * scale))
        assigned = np.floor((hits + wrong) * scale + 0.5)
        passed = assigned - np.ceil(wrong * scale) > critical_hits(assigned, share, each)
        return len(starts) > 0 and bool((passed & (assigned >= starts[0])).any())

    if not len(hits) or not enough(LARGEST_SCALE):
        return None
    low, high = 1.0 / max(1, limiting), LARGEST_SCALE
    for _ in range(BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return int(np.floor(limiting * high + 0.5))
