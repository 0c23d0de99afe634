"""A drop of recall by labels of the labelling queue, which over-represents difficult messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ballast.monitoring.decision import Policy
from ballast.monitoring.estimated_performance import Estimated
from ballast.monitoring.labelled_quality import UNLABELLED, LabelledSample
from ballast.monitoring.labelling_queue import Scores, Wanted, draw_queue
from ballast.monitoring.recall_drops import difference, level, recall_drops, recall_drops_of_queue

# A tenth of the steady samples may show a drop of one of the two classes.
POLICY = Policy(confidence=0.95, false_alarm=1.2, negligible=0.01, tolerance=0.15, minimum_labels=20, margin=0.01)
DISTANCE, SHARE = 4.0, 0.13


def population(n: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n,) and calibrated posteriors (n, 2) of messages with normal scores."""
    classes = (rng.random(n) < share).astype(np.int64)
    odds = DISTANCE * (rng.normal(size=n) + DISTANCE * classes) - DISTANCE**2 / 2 + np.log(share / (1 - share))
    positive = 1 / (1 + np.exp(-odds))
    return classes, np.column_stack([1 - positive, positive])


def held_out(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, decisions and groups of held-out messages."""
    classes, posteriors = population(1500, SHARE, np.random.default_rng([seed, 0]))
    return classes, posteriors.argmax(axis=1), np.arange(len(classes))


def labelled_queue(seed: int, *, budget: int = 150, hidden: float = 0.0) -> LabelledSample:
    """The labelled queue of a window; a share `hidden` of the common class is in truth of the rare one."""
    rng = np.random.default_rng([seed, 1])
    classes, posteriors = population(3000, SHARE, rng)
    scores = Scores(posteriors=posteriors, predicted=posteriors.argmax(axis=1), groups=np.arange(3000), common=0)
    queue = draw_queue(scores, Wanted(budget=budget, random=0.2, neighbours=0.0), seed)
    classes = np.where(rng.random(3000) < hidden, 1, classes)
    return LabelledSample(
        classes=classes[queue.rows],
        predicted=scores.predicted[queue.rows],
        posteriors=posteriors[queue.rows],
        inclusion=queue.inclusion,
        sizes=queue.sizes,
        strata=queue.strata,
    )


def test_weights_keep_difficult_messages_from_looking_like_a_drop() -> None:
    weighted, unweighted = 0, 0
    for seed in range(25):
        sample, (classes, predicted, groups) = labelled_queue(seed), held_out(seed)
        weighted += bool(recall_drops_of_queue(classes, predicted, groups, sample, POLICY, seed))
        unweighted += bool(recall_drops(classes, predicted, sample.classes, sample.predicted, POLICY, 2))
    # About 0.2 of the samples, two classes with a level of 0.1 each; more than 12 have a probability of 0.0004.
    assert level(POLICY, 2) == pytest.approx(0.1) and weighted <= 12
    assert unweighted >= 20, "the queue is not difficult, so that this test shows nothing"


def test_a_drop_that_the_messages_show_is_found_with_its_recall() -> None:
    classes, predicted, groups = held_out(0)
    strict = replace(POLICY, false_alarm=0.005)
    samples = [labelled_queue(seed, budget=400, hidden=0.2) for seed in range(3)]
    found = [recall_drops_of_queue(classes, predicted, groups, sample, strict) for sample in samples]
    recalls = [drop.found for drops in found for drop in drops if drop.label == 1]
    assert len(recalls) == 3 and all(drop.by_queue for drops in found for drop in drops)
    # About 0.12 of 0.13 are found, and none of the 0.2 of 0.87 that are hidden.
    assert np.mean(recalls) == pytest.approx(0.12 / 0.304, abs=0.08)
    assert all(drop.expected > 0.9 for drops in found for drop in drops)


def test_few_labels_and_small_drops_say_nothing() -> None:
    classes, predicted, groups = held_out(0)
    sample = labelled_queue(0, budget=400, hidden=0.2)
    assert recall_drops_of_queue(classes, predicted, groups, sample, POLICY)
    assert recall_drops_of_queue(classes, predicted, groups, sample, replace(POLICY, minimum_labels=401)) == []
    assert recall_drops_of_queue(classes, predicted, groups, sample, replace(POLICY, margin=0.9)) == []
    nothing = replace(sample, classes=np.full(len(sample.classes), UNLABELLED))
    assert recall_drops_of_queue(classes, predicted, groups, nothing, POLICY) == []


def test_the_interval_of_a_difference_covers_it() -> None:
    """Two shares of 30 and 200 messages with exact intervals."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        parts = []
        for n, share in ((30, 0.6), (200, 0.9)):
            hits = rng.binomial(n, share)
            low, high = np.quantile(rng.beta(hits + 0.5, n - hits + 0.5, size=400), [0.025, 0.975])
            parts.append(Estimated(value=hits / n, low=min(low, hits / n), high=max(high, hits / n)))
        between = difference(*parts)
        covered += between.low <= -0.3 <= between.high
    assert 0.92 <= covered / 400 <= 0.98
