"""Find the classes whose recall in production fell below that on the held-out messages, from labels.

Recall does not depend on the class prior. Labels of the labelling queue and other labels are tested apart: those of the queue
over-represent difficult messages, so that they count with their weights, and nothing is known about how the others came about.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import fisher_exact

from ballast.evaluation.bootstrap import wilson_interval
from ballast.monitoring.decision import KINDS, Policy, RecallDrop
from ballast.monitoring.estimated_performance import Estimated
from ballast.monitoring.labelled_quality import DRAWS, LabelledSample, class_quality

# Labels of the queue, and other labels.
SOURCES = 2
# Draws beyond each end of an interval, however rare a false alarm may be.
BEYOND = 8


def level(policy: Policy, count: int) -> float:
    """Allowed rate of false alarms of a one-sided test of one of `count` classes (Bonferroni)."""
    return policy.false_alarm / KINDS / count / SOURCES


def difference(ours: Estimated, other: Estimated) -> Estimated:
    """The difference of two independent estimates, with its interval.

    Source: Newcombe (1998), method 10; Zou and Donner (2008), for any estimates with intervals.

    Examples
    --------
    >>> ours, other = Estimated(value=0.7, low=0.6, high=0.8), Estimated(value=0.9, low=0.86, high=0.93)
    >>> of_both = difference(ours, other)
    >>> round(of_both.value, 3), round(of_both.low, 3), round(of_both.high, 3)
    (-0.2, -0.304, -0.092)
    """
    value = ours.value - other.value
    return Estimated(
        value=value,
        low=value - float(np.hypot(ours.value - ours.low, other.high - other.value)),
        high=value + float(np.hypot(ours.high - ours.value, other.value - other.low)),
    )


def recall_drops(
    classes: np.ndarray,
    predicted: np.ndarray,
    feedback_classes: np.ndarray,
    feedback_predicted: np.ndarray,
    policy: Policy,
    count: int,
) -> list[RecallDrop]:
    """The classes with a recall on labelled feedback that fell by more than the margin (Fisher's exact test).

    classes, predicted : (m,) of the held-out messages.
    feedback_classes, feedback_predicted : (n,) of the feedback.
    count : number of classes.
    """
    drops = []
    for label in range(count):
        before, now = predicted[classes == label] == label, feedback_predicted[feedback_classes == label] == label
        if len(now) < policy.minimum_labels or len(before) == 0:
            continue
        table = [[now.sum(), (~now).sum()], [before.sum(), (~before).sum()]]
        p = fisher_exact(table, alternative="less").pvalue
        if p < level(policy, count) and before.mean() - now.mean() > policy.margin:
            drops.append(RecallDrop(label=label, expected=float(before.mean()), found=float(now.mean()), support=len(now)))
    return drops


def recall_drops_of_queue(
    classes: np.ndarray, predicted: np.ndarray, groups: np.ndarray, sample: LabelledSample, policy: Policy, seed: int = 0
) -> list[RecallDrop]:
    """The classes with a weighted recall by labels of the queue that fell by more than the margin.

    The whole interval of the difference must lie below 0. That of the held-out recall is Wilson's, with groups as trials.

    classes, predicted, groups : (m,) of the held-out messages.
    """
    rng = np.random.default_rng(seed)
    count = sample.posteriors.shape[1]
    rate = level(policy, count)
    confidence, draws = 1 - 2 * rate, max(DRAWS, round(BEYOND / rate))
    drops = []
    for label in range(count):
        own, support = classes == label, int((sample.classes == label).sum())
        if support < policy.minimum_labels or not own.any():
            continue
        share = float((predicted[own] == label).mean())
        low, high = wilson_interval(share, len(np.unique(groups[own])), confidence)
        expected = Estimated(value=share, low=min(low, share), high=max(high, share))
        found = class_quality(sample, label, confidence=confidence, rng=rng, draws=draws).recall
        if found is not None and (below := difference(found, expected)).high < 0 and below.value < -policy.margin:
            drops.append(RecallDrop(label=label, expected=share, found=found.value, support=support, by_queue=True))
    return drops
