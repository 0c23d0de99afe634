"""Variation between the trainings of folds: planted, found, and taken into account."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claim_verdicts import assess_claims
from ballast.evaluation.claims import INCONCLUSIVE, SUPPORTED, Claim, Design, Part
from ballast.evaluation.fold_variation import (
    fold_values,
    training_errors,
    training_variances,
    with_fold_variation,
    with_training_error,
)
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.protocol import Labelled, OutOfFold, Protocol

FOLDS, TECHNIQUES = 5, 12


def planted(
    rng: np.random.Generator, messages: float, trainings: float, effect: float = 0.0
) -> tuple[dict[str, Draws], dict[str, dict[str, np.ndarray]]]:
    """Techniques on five folds with errors of their messages and of their trainings; folds also differ in how easy they are.

    messages : standard deviation of the mean over all folds. Half of its variance is common to all techniques.
    """
    easy = rng.normal(0, 0.05, FOLDS) + rng.normal(0, messages * math.sqrt(FOLDS / 2), FOLDS)
    own = rng.normal(0, messages * math.sqrt(FOLDS / 2), (TECHNIQUES, FOLDS))
    values = 0.8 + easy + own + rng.normal(0, trainings, (TECHNIQUES, FOLDS))
    values[1] += effect
    common = rng.normal(0, messages / math.sqrt(2), 400)
    draws, by_fold = {}, {}
    for at, of_technique in enumerate(values):
        name = f"t{at}"
        resampled = of_technique.mean() + common + rng.normal(0, messages / math.sqrt(2), 400)
        seeds = {"f1": np.array([of_technique.mean()])}
        draws[name] = Draws(values={"f1": resampled}, seeds=seeds, correct=np.ones((1, 1), dtype=bool))
        by_fold[name] = {"f1": of_technique[None]}
    return draws, by_fold


def test_the_variance_between_trainings_is_found_beyond_that_of_the_messages() -> None:
    for trainings in (0.0, 0.01, 0.03):
        found = []
        for seed in range(200):
            draws, by_fold = planted(np.random.default_rng(seed), messages=0.006, trainings=trainings)
            values = np.stack([of_name["f1"] for of_name in by_fold.values()])
            found.append(training_variances(values, np.stack([of_name.values["f1"] for of_name in draws.values()])).mean())
        assert np.mean(found) == pytest.approx(trainings**2, rel=0.05, abs=2e-6)


@pytest.mark.parametrize("trainings", [0.0, 0.02])
def test_differences_between_level_techniques_are_seldom_claimed(trainings: float) -> None:
    """At 5% for each of 200 redraws; without the variation between trainings, far more."""
    part = Part(technique="t1", metric="f1", direction="higher", reference="t0")
    claim = Claim(words="", source="", parts=[part])
    counts = {"varied": 0, "messages alone": 0}
    for seed in range(200):
        draws, by_fold = planted(np.random.default_rng(seed), messages=0.004, trainings=trainings)
        for kind, of_kind in (("varied", with_fold_variation(draws, by_fold)), ("messages alone", draws)):
            design = Design(draws=of_kind, label="spam", rare=653, trainings=5, confidence=0.95)
            counts[kind] += assess_claims([claim], design)[0]["verdict"] == SUPPORTED
    # The upper 99% bound of one side of 5% of 200.
    assert counts["varied"] <= 11
    assert not trainings or counts["messages alone"] > 30


def test_a_difference_that_is_there_is_claimed() -> None:
    claim = Claim(words="", source="", parts=[Part(technique="t1", metric="f1", direction="higher", reference="t0")])
    found = []
    for seed in range(50):
        draws, by_fold = planted(np.random.default_rng(seed), messages=0.004, trainings=0.01, effect=0.06)
        varied = with_fold_variation(draws, by_fold)
        found.append(assess_claims([claim], Design(draws=varied, label="spam", rare=653, trainings=5, confidence=0.95))[0])
    assert np.mean([each["verdict"] == SUPPORTED for each in found]) > 0.9
    assert all(each["decided_by"] is not None for each in found if each["verdict"] == INCONCLUSIVE)


def test_more_repeats_lower_the_error_of_the_trainings() -> None:
    rng = np.random.default_rng(0)
    draws = np.zeros((TECHNIQUES, 400))
    once, often = (
        np.mean([error.value for error in training_errors(rng.normal(0, 0.02, (TECHNIQUES, repeats, FOLDS)), draws)])
        for repeats in (1, 16)
    )
    assert once / often == pytest.approx(4, rel=0.35)


def test_an_estimate_of_all_folds_varies_with_its_trainings() -> None:
    """The correction of Nadeau and Bengio: 1/5 + 1/4 of the variance of one training."""
    by_fold = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert with_training_error(0.0, 0.0, by_fold) == pytest.approx(math.sqrt(2.5 * (1 / 5 + 1 / 4)))
    assert with_training_error(0.0, 1.0, by_fold / 10) == 1.0


def test_values_by_fold_are_those_of_the_fold_alone() -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, 60)
    test = Labelled(classes=classes, groups=np.arange(60) // 2)
    protocol = Protocol(
        names=["ham", "spam"],
        out_of_fold=OutOfFold(classes=classes, groups=test.groups, training=np.zeros(60, int), part=np.zeros(60, int)),
        test=test,
        production_prior=np.array([0.5, 0.5]),
        resamples=10,
        confidence=0.95,
        seed=0,
    )
    logits = [rng.normal(size=(60, 2)) + np.eye(2)[classes] for _ in range(2)]
    fold_of = (np.arange(60) // 2) % 3
    values = fold_values(logits, [fold_of], np.ones(2), protocol)
    assert values["accuracy"].shape == (1, 3)
    expected = np.mean([(scores.argmax(axis=1) == classes)[fold_of == 1].mean() for scores in logits])
    assert values["accuracy"][0, 1] == pytest.approx(expected)
    assert set(values) == set(Decisions(protocol.test_scores(logits[0], np.ones(2)))(np.ones((1, 30))))
