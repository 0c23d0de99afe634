"""Levers: gains that agree with direct computations, choose nothing on test, and promise nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from ballast.evaluation.adjustment import Adjusted, adjust
from ballast.evaluation.levers import (
    ensemble_gain,
    gain_of,
    gain_on_test,
    post_hoc_gain,
    relabelling_ceiling,
    threshold_gain,
)
from ballast.evaluation.metrics import Decisions, macro_f1
from ballast.evaluation.protocol import Protocol, SeedScores
from tests.test_out_of_fold import trained


@pytest.fixture(scope="module")
def scored() -> tuple[Adjusted, Protocol]:
    scores, protocol = trained(3, 3)
    return adjust(scores, protocol), protocol


def test_the_gain_of_a_threshold_is_that_of_the_cross_fitted_decisions(scored: tuple[Adjusted, Protocol]) -> None:
    adjusted, protocol = scored
    gain, classes = threshold_gain(adjusted, "macro_f1", protocol), protocol.out_of_fold.classes
    assert gain is not None
    reached = [
        macro_f1(scores.argmax(axis=1), classes, protocol.production_weights(protocol.out_of_fold)[classes])
        for scores in (adjusted.crossed, adjusted.crossed_preferences)
    ]
    assert gain["value"] == pytest.approx(reached[1] - reached[0], abs=1e-6)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert threshold_gain(adjusted, "log_loss", protocol) is None


def test_a_threshold_helps_where_the_most_probable_class_never_is_the_rare_one() -> None:
    scores, protocol = trained(3, 3)

    def weak(logits: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros(len(logits)), 0.2 * (logits[:, 1] + 1.4) - 1.4], axis=1)

    flat = [replace(seed, validation=weak(seed.validation), test=weak(seed.test)) for seed in scores]
    gain = threshold_gain(adjust(flat, protocol), "spam.f1", protocol)
    assert gain is not None and gain["low"] > 0.2


def test_losses_that_fall_are_gains() -> None:
    draws = np.linspace(-0.3, -0.1, 101)
    assert gain_of("log_loss", -0.2, draws, 0.9) == pytest.approx({"value": 0.2, "low": 0.11, "high": 0.29})
    assert gain_of("macro_f1", -0.2, draws, 0.9) == pytest.approx({"value": -0.2, "low": -0.29, "high": -0.11})


def noisy(scores: list[SeedScores], deviation: float) -> list[SeedScores]:
    """The scores of one model of test with independent noise for each training."""
    rng = np.random.default_rng(0)
    return [
        replace(seed, test=scores[0].test + np.outer(deviation * rng.normal(size=len(seed.test)), [0, 1])) for seed in scores
    ]


def test_an_ensemble_averages_out_what_trainings_do_not_share() -> None:
    scores, protocol = trained(3, 3)
    adjusted = adjust(noisy(scores, deviation=3.0), protocol)
    weights = protocol.production_weights(protocol.test)[protocol.test.classes]
    for metric in ("macro_f1", "log_loss"):
        gain = ensemble_gain(adjusted, metric, protocol)
        assert gain is not None and gain["low"] > 0, metric
    single = [
        macro_f1(adjusted.fit.preferences(logits).argmax(axis=1), protocol.test.classes, weights) for logits in adjusted.test
    ]
    averaged = adjusted.fit.preferences(np.mean(adjusted.test, axis=0))
    together = macro_f1(averaged.argmax(axis=1), protocol.test.classes, weights)
    gain = ensemble_gain(adjusted, "macro_f1", protocol)
    assert gain is not None and gain["value"] == pytest.approx(together - np.mean(single), abs=1e-6)


def test_an_ensemble_of_equal_models_gains_nothing() -> None:
    scores, protocol = trained(3, 3)
    adjusted = adjust(noisy(scores, deviation=0.0), protocol)
    for metric in ("macro_f1", "log_loss"):
        assert ensemble_gain(adjusted, metric, protocol) == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-6), metric
    assert ensemble_gain(adjust(scores[:1], trained(1, 3)[1]), "macro_f1", protocol) is None, "one training is no ensemble"


def test_the_post_hoc_method_is_chosen_without_test() -> None:
    scores, protocol = trained(3, 3)
    rng = np.random.default_rng(0)
    found = post_hoc_gain(adjust(scores, protocol), "macro_f1", protocol)
    shuffled = [replace(seed, test=rng.permutation(seed.test)) for seed in scores]
    other = post_hoc_gain(adjust(shuffled, protocol), "macro_f1", protocol)
    assert found is not None and other is not None
    assert found.method == other.method and found.gain != other.gain
    assert post_hoc_gain(adjust(scores, protocol), "brier", protocol) is None


def test_a_planted_post_hoc_gain_is_found() -> None:
    """A model whose scores are too flat and shifted: its most probable class is wrong, a recalibration is right."""
    scores, protocol = trained(3, 3)
    even = replace(protocol, production_prior=np.array([0.5, 0.5]))
    gain = post_hoc_gain(adjust(scores, even), "macro_f1", even)
    assert gain is not None and gain.gain["low"] <= 0.03, "right posteriors leave little to correct"


def test_gains_on_test_cover_a_planted_difference() -> None:
    """Two level classifiers: the interval of their difference contains 0 in about 95% of simulations."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, protocol = trained(1, 3, seed=seed)
        truth = protocol.test.classes
        sides = []
        for _ in range(2):
            predicted = np.where(rng.random((3, len(truth))) < 0.1, 1 - truth, truth)
            sides.append([Decisions(protocol.test_scores(np.eye(2)[classes], np.ones(2))) for classes in predicted])
        gain = gain_on_test(*sides, "accuracy", protocol)
        covered.append(gain["low"] <= 0 <= gain["high"])
    # 53 of 60 is the 3% quantile of the binomial if the coverage is 95%.
    assert np.sum(covered) >= 53


def test_relabelling_has_a_ceiling_that_accepting_every_suggestion_reaches(scored: tuple[Adjusted, Protocol]) -> None:
    adjusted, protocol = scored
    classes = protocol.out_of_fold.classes
    assert relabelling_ceiling(adjusted, classes, "macro_f1", protocol) == 0
    decided = adjusted.crossed_preferences.argmax(axis=1)
    before = macro_f1(decided, classes, protocol.production_weights(protocol.out_of_fold)[classes])
    assert relabelling_ceiling(adjusted, decided, "macro_f1", protocol) == pytest.approx(1 - before, abs=0.005)
    loss = -log_softmax(adjusted.crossed, axis=1)
    likely = loss.argmin(axis=1)
    assert relabelling_ceiling(adjusted, likely, "log_loss", protocol) > 0
