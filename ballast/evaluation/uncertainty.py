"""Intervals of an operating point: of its threshold, and of the share of messages that people decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit, softmax

from ballast.evaluation.bootstrap import percentile_interval, resample_counts
from ballast.evaluation.candidates import Candidates, candidates_of, cells_of, ranking_label, resampled_thresholds
from ballast.evaluation.costs import threshold
from ballast.evaluation.guarantee import certified, count_units
from ballast.evaluation.operating_point import OperatingPoint
from ballast.evaluation.review import review_mask
from ballast.evaluation.rules import LIMITED, Rule, best_threshold, satisfies_limit

# Resampled weights in memory at once.
WEIGHTS_AT_ONCE = 1 << 22


def with_uncertainty(
    point: OperatingPoint,
    rule: Rule,
    logits: np.ndarray,
    classes: np.ndarray,
    class_weights: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    resamples: int = 300,
    confidence: float = 0.95,
) -> OperatingPoint:
    """The operating point with an interval of its threshold and of the share of messages that people decide.

    Each resample of whole groups chooses a threshold again. The percentile interval of these thresholds shows how much the
    choice depends on the messages. A threshold that costs imply needs no data, so its interval has no width.

    Parameters
    ----------
    logits, classes, class_weights, groups : as in `choose_operating_point`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Examples
    --------
    >>> from ballast.evaluation.operating_point import choose_operating_point
    >>> rng = np.random.default_rng(0)
    >>> classes = np.repeat([0, 1], 500)
    >>> logits = np.column_stack([np.zeros(1000), 4 * rng.normal(size=1000) + 8 * classes - 4])
    >>> rule = Rule(kind="precision", label=1, limit=0.9)
    >>> point = choose_operating_point(rule, logits, classes, np.ones(2))
    >>> point = with_uncertainty(point, rule, logits, classes, np.ones(2))
    >>> {name: round(value, 2) for name, value in point.threshold.items()}
    {'value': 0.81, 'low': 0.7, 'high': 0.89}
    """
    label = ranking_label(rule, logits.shape[1])
    review = point.review
    if review is not None:
        review = replace(review, share=review_share(point, logits, classes, class_weights, groups, resamples, confidence))
    if label is None or logits.shape[1] > 2:
        return replace(point, review=review)
    value = threshold(point.costs, label)
    low = high = value
    if rule.kind != "cost":
        at = resampled_choices(rule, candidates_of(rule, logits, classes, class_weights, groups), resamples)
        low, high = (float(expit(end)) for end in percentile_interval(at, confidence))
    # The interval of few resamples may miss the value itself.
    return replace(point, review=review, threshold={"value": value, "low": min(low, value), "high": max(high, value)})


def resampled_choices(rule: Rule, candidates: Candidates, resamples: int) -> np.ndarray:
    """Margin threshold (b,) that a rule chooses on each resample of groups.

    Examples
    --------
    >>> logits, classes = np.column_stack([np.zeros(40), np.arange(40.0) - 20]), np.repeat([0, 1], 20)
    >>> rule = Rule(kind="f1", label=1)
    >>> at = resampled_choices(rule, candidates_of(rule, logits, classes, np.ones(2), None), resamples=100)
    >>> at.shape, float(np.median(at))
    ((100,), -0.5)
    """
    everything = candidates.thresholds()
    # The best threshold is always just below a message of the class.
    at = everything.at[np.diff(everything.hits, prepend=0) > 0]
    units = candidates.units() if rule.guarantee is not None and rule.kind in LIMITED else None
    cells = cells_of(candidates, at)
    rows = max(1, WEIGHTS_AT_ONCE // len(at))
    chosen = []
    for block in resample_counts(int(candidates.groups.max()) + 1, resamples, seed=0):
        for start in range(0, len(block), rows):
            counts = block[start : start + rows].astype(np.float64)
            thresholds = resampled_thresholds(candidates, at, cells, counts)
            valid = satisfies_limit(rule, thresholds)
            if units is not None:
                safe = certified(rule, units, count_units(units, at, counts[:, units.group]))
                valid = np.where(safe.any(axis=-1, keepdims=True), safe, valid)
            chosen.append(best_threshold(rule, thresholds, valid))
    return at[np.concatenate(chosen)]


def review_share(
    point: OperatingPoint,
    logits: np.ndarray,
    classes: np.ndarray,
    class_weights: np.ndarray,
    groups: np.ndarray | None,
    resamples: int,
    confidence: float,
) -> dict[str, float]:
    """Value, low and high of the share of messages that people decide at the production prior.

    Examples
    --------
    >>> from ballast.evaluation.operating_point import choose_operating_point
    >>> from ballast.evaluation.review import Review
    >>> rule = Rule(kind="cost", costs=1 - np.eye(2), review=Review(kind="cost", limit=0.3))
    >>> logits, classes = np.log([[0.9, 0.1], [0.55, 0.45]]), np.array([0, 1])
    >>> point = choose_operating_point(rule, logits, classes, np.ones(2))
    >>> review_share(point, logits, classes, np.ones(2), None, resamples=100, confidence=0.95)["value"]
    0.5
    """
    reviewed = review_mask(softmax(logits, axis=1), point.costs, point.review)
    _, numbers = np.unique(np.arange(len(classes)) if groups is None else groups, return_inverse=True)
    weights = class_weights[classes]
    sums = np.stack([np.bincount(numbers, weights=column) for column in (weights * reviewed, weights)], axis=1)
    drawn = np.concatenate([counts.astype(np.float64) @ sums for counts in resample_counts(len(sums), resamples, seed=0)])
    low, high = percentile_interval(drawn[:, 0] / drawn[:, 1], confidence)
    return {"value": float(weights[reviewed].sum() / weights.sum()), "low": low, "high": high}
