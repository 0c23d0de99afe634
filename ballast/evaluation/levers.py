"""Levers: what could still improve a selected technique, each as a gain in one metric with an interval.

A gain is an improvement: the difference of a metric, with the opposite sign for losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ballast.evaluation.adjustment import Adjusted, fit
from ballast.evaluation.bootstrap import Draws, percentile_interval
from ballast.evaluation.calibration import fit_calibration
from ballast.evaluation.intervals import point_values
from ballast.evaluation.learning_curve import draws_of_crossed, error_of, is_of_decisions
from ballast.evaluation.metrics import Decisions, Metrics, higher_is_better
from ballast.evaluation.out_of_fold import varied
from ballast.evaluation.paired import differences_on_test
from ballast.evaluation.post_hoc import TrainedScores, post_hoc_logits
from ballast.evaluation.power_law import Extrapolation
from ballast.evaluation.protocol import Protocol
from ballast.evaluation.statistic import Statistic
from ballast.models.ensemble import mean_logits

Estimate = dict[str, float]


def gain_of(metric: str, value: float, draws: np.ndarray, confidence: float) -> Estimate:
    """A difference of a metric and its draws (resamples,) as a gain: value, low, high.

    Examples
    --------
    >>> gain_of("log_loss", -0.25, np.linspace(-0.5, 0, 101), confidence=0.5)
    {'value': 0.25, 'low': 0.125, 'high': 0.375}
    """
    sign = 1 if higher_is_better(metric) else -1
    low, high = percentile_interval(sign * draws, confidence)
    return {"value": sign * value, "low": min(low, sign * value), "high": max(high, sign * value)}


def threshold_gain(adjusted: Adjusted, metric: str, protocol: Protocol) -> Estimate | None:
    """Gain of the operating point over the most probable class, on out-of-fold messages, where both are cross-fitted.

    None for a metric of probabilities, which no threshold changes.
    """
    if not is_of_decisions(metric):
        return None
    # The argmax of the corrected logits is the most probable class.
    before, after = (
        draws_of_crossed(adjusted.crossed, preferences, metric, protocol)
        for preferences in (adjusted.crossed, adjusted.crossed_preferences)
    )
    return paired_gain(before, after, metric, protocol)


def paired_gain(before: Draws, after: Draws, metric: str, protocol: Protocol) -> Estimate:
    """Gain from draws of a metric on the same out-of-fold messages, with the variation of the difference between trainings."""
    paired = Draws(
        values={metric: after.values[metric] - before.values[metric]},
        seeds={metric: after.seeds[metric] - before.seeds[metric]},
        correct=after.correct,
    )
    value = after.point(metric) - before.point(metric)
    return gain_of(metric, value, varied(paired, metric, protocol), protocol.confidence)


def gain_of_more_messages(adjusted: Adjusted, extrapolation: Extrapolation, metric: str, protocol: Protocol) -> Estimate:
    """Gain if the out-of-fold error of a technique falls by the share that a learning curve promises."""
    draws = draws_of_crossed(adjusted.crossed, adjusted.crossed_preferences, metric, protocol)
    error = error_of(metric, np.array(draws.point(metric)))
    return extrapolation.gain(float(error), error_of(metric, varied(draws, metric, protocol)), protocol.confidence)


def crossed_post_hoc(adjusted: Adjusted, protocol: Protocol) -> dict[str, np.ndarray]:
    """Out-of-fold logits (n, K) by post hoc method, each part by the fit on the other parts."""
    messages, logits = protocol.out_of_fold, adjusted.out_of_fold
    by_method: dict[str, np.ndarray] = {}
    for part in np.unique(messages.part):
        outside, inside = messages.rows_outside(part), messages.part == part
        rows = [inside & (messages.training == training) for training in range(len(adjusted.scores))]
        scores = TrainedScores(
            out_of_fold=logits[outside],
            classes=messages.classes[outside],
            training=messages.training[outside],
            test=[logits[of_training] for of_training in rows],
            heads=[seed.head for seed in adjusted.scores],
        )
        calibration = fit_calibration(logits[outside], messages.classes[outside])
        effective = fit(logits[outside], messages.subset(outside), adjusted.fit.declared, protocol, messages.copies).effective
        found = post_hoc_logits(scores, effective, calibration, protocol.production_prior)
        for method, by_training in found.items():
            for of_training, adjusted_logits in zip(rows, by_training, strict=True):
                by_method.setdefault(method, np.empty(logits.shape))[of_training] = adjusted_logits
    return by_method


@dataclass(frozen=True, kw_only=True)
class PostHoc:
    """The post hoc method that is best out of fold, and its gain over the most probable class on test."""

    method: str
    gain: Estimate


def post_hoc_gain(adjusted: Adjusted, metric: str, protocol: Protocol) -> PostHoc | None:
    """Choose a post hoc method out of fold by a metric of decisions, and measure its gain on test, which chose nothing.

    None for a metric of probabilities.
    """
    if not is_of_decisions(metric):
        return None
    messages = protocol.out_of_fold
    weights = protocol.production_weights(messages)
    reached = {}
    for method, logits in crossed_post_hoc(adjusted, protocol).items():
        statistic = Decisions(protocol.scores(messages, logits, weights))
        reached[method] = gain_of(metric, point_values([statistic], messages)[0][metric], np.zeros(1), 0.5)["value"]
    method = max(reached, key=lambda name: reached[name])
    after = adjusted.post_hoc(protocol)[method]
    decided = decisions_on_test(protocol)
    gain = gain_on_test(list(map(decided, adjusted.test)), list(map(decided, after)), metric, protocol)
    return PostHoc(method=method, gain=gain)


def decisions_on_test(protocol: Protocol) -> Callable[[np.ndarray], Statistic]:
    """A function from logits (m, K) of test, on the production prior, to the metrics of the most probable classes."""
    weights = protocol.production_weights(protocol.test)
    return lambda logits: Decisions(protocol.test_scores(logits, weights))


def gain_on_test(before: Sequence[Statistic], after: Sequence[Statistic], metric: str, protocol: Protocol) -> Estimate:
    """Gain from statistics of each training, before and after a change, on the same resamples of the test groups.

    With one statistic after the change, such as that of an ensemble, the trainings count as given.
    """
    difference = differences_on_test(before, after, {metric: [metric]}, protocol)[metric]
    return gain_of(metric, difference.value, difference.draws, protocol.confidence)


def ensemble_gain(adjusted: Adjusted, metric: str, protocol: Protocol) -> Estimate | None:
    """Gain of the mean of the logits of all trainings over the mean of single trainings, on test.

    Prior and operating point are those of single models, unchanged. None for one training.
    """
    if len(adjusted.scores) < 2:
        return None
    weights = protocol.production_weights(protocol.test)
    averaged = adjusted.fit.corrected(mean_logits([seed.test for seed in adjusted.scores]), protocol)

    def measured(corrected: np.ndarray) -> Statistic:
        if is_of_decisions(metric):
            return Decisions(protocol.test_scores(adjusted.fit.preferences(corrected), weights))
        return Metrics(protocol.test_scores(corrected, weights))

    return gain_on_test(list(map(measured, adjusted.test)), [measured(averaged)], metric, protocol)


def relabelling_ceiling(adjusted: Adjusted, classes: np.ndarray, metric: str, protocol: Protocol) -> float:
    """By how much a metric of out-of-fold decisions improves if classes (n,), some of them suggested, replace the labels.

    Suggestions agree with the model by construction. This is therefore an upper bound, which is reached if all of them are
    accepted unread, and not an estimate: only a reader can say whether a label is wrong.
    """
    messages = protocol.out_of_fold
    weights, values = protocol.production_weights(messages), []
    for truth in (messages.classes, classes):
        labelled = replace(messages, classes=truth)
        decides = is_of_decisions(metric)
        scored = protocol.scores(labelled, adjusted.crossed_preferences if decides else adjusted.crossed, weights)
        values.append(point_values([Decisions(scored) if decides else Metrics(scored)], labelled)[0][metric])
    return (values[1] - values[0]) * (1 if higher_is_better(metric) else -1)
