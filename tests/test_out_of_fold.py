"""What is fitted on out-of-fold scores: pooled over seeds, crossed where it is judged on them, and blind to test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.evaluation.adjustment import adjust, fit
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.evaluate import evaluate
from ballast.evaluation.operating_point import Rule
from ballast.evaluation.protocol import Labelled, Protocol, SeedScores

NAMES, SHARES = ["ham", "spam"], np.array([0.8, 0.2])


def gaussian_logits(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits (n, 2) whose posteriors are right for the class shares."""
    score = rng.normal(3 * classes - 1.5, np.sqrt(3)) + np.log(SHARES[1] / SHARES[0])
    return np.stack([np.zeros(len(classes)), score], axis=1)


def trained(
    seeds: int, folds: int, messages: int = 400, shift: float = 0.0, seed: int = 0
) -> tuple[list[SeedScores], Protocol]:
    """Made-up scores of several seeds that validate on the folds in turn, with the protocol."""
    rng = np.random.default_rng(seed)
    groups = np.arange(folds * messages) // 2
    classes = np.repeat((rng.random(folds * messages // 2) < SHARES[1]).astype(int), 2)
    fold, test = groups % folds, (rng.random(500) < SHARES[1]).astype(int)
    rows = [np.flatnonzero(fold == number % folds) for number in range(seeds)]
    scores = [
        SeedScores(
            validation=gaussian_logits(classes[held_out], rng),
            validation_rows=held_out,
            test=gaussian_logits(test, rng),
            train=np.zeros((4, 2)),
            train_classes=np.array([0, 1, 0, 1]),
            declared_prior=SHARES,
        )
        for held_out in rows
    ]
    protocol = Protocol(
        names=NAMES,
        out_of_fold=out_of_fold(rows, classes, groups),
        test=Labelled(classes=test, groups=np.arange(500)),
        production_prior=SHARES,
        resamples=200,
        confidence=0.95,
        seed=0,
        rule=Rule(kind="f1", label=1),
    )
    return scores, protocol


@settings(max_examples=50, deadline=None)
@given(seeds=st.integers(1, 6), folds=st.integers(2, 5), messages=st.sampled_from([40, 60]))
def test_parts_for_cross_fitting_never_separate_a_group_and_leave_every_class(seeds: int, folds: int, messages: int) -> None:
    _, protocol = trained(seeds, folds, messages)
    held_out = protocol.out_of_fold
    parts_of_group = {(group, part) for group, part in zip(held_out.groups, held_out.part, strict=True)}
    assert len(parts_of_group) == held_out.n_groups
    assert len(np.unique(held_out.part)) == (min(seeds, folds) if min(seeds, folds) > 1 else 5)
    assert held_out.copies == max(1, len(held_out.classes) / (min(seeds, folds) * messages))
    for part in np.unique(held_out.part):
        assert len(np.unique(held_out.classes[held_out.rows_outside(part)])) == 2


def test_the_fit_reads_no_test_score() -> None:
    scores, protocol = trained(seeds=3, folds=8)
    blind = [replace(of_seed, test=np.full_like(of_seed.test, 7.0)) for of_seed in scores]
    (one, other) = (evaluate(dict(enumerate(given)), protocol).summary for given in (scores, blind))
    assert one["fitted"] == other["fitted"] and one["out_of_fold"] == other["out_of_fold"]
    assert one["pooled"] != other["pooled"]


def test_all_seeds_share_one_fit_on_all_their_held_out_messages() -> None:
    scores, protocol = trained(seeds=3, folds=8)
    adjusted = adjust(scores, protocol)
    logits = np.concatenate([of_seed.validation for of_seed in scores])
    assert len(logits) == 3 * 400
    expected = fit(logits, protocol.out_of_fold, SHARES, protocol)
    np.testing.assert_allclose(adjusted.fit.operating_point.costs, expected.operating_point.costs)
    for of_seed, corrected in zip(scores, adjusted.test, strict=True):
        np.testing.assert_allclose(corrected, expected.corrected(of_seed.test, protocol), atol=1e-12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_labels_of_a_part_do_not_move_its_own_threshold(seeds: int) -> None:
    """With the labels of one part changed, the decisions on that part stay, and those on other parts change."""
    scores, protocol = trained(seeds=seeds, folds=8)
    held_out = protocol.out_of_fold
    before = adjust(scores, protocol).crossed_preferences.argmax(axis=1)
    inside = held_out.part == held_out.part[0]
    rng = np.random.default_rng(1)
    changed = np.where(inside, (rng.random(len(inside)) < 0.5).astype(int), held_out.classes)
    after = adjust(scores, replace(protocol, out_of_fold=replace(held_out, classes=changed))).crossed_preferences.argmax(axis=1)
    # The weights of the classes follow from all labels, so compare the order of the messages: a threshold moves none.
    assert (before[inside] == after[inside]).mean() > 0.99
    assert (before[~inside] != after[~inside]).any()


def test_out_of_fold_metrics_are_not_optimistic() -> None:
    """Scores without information: a threshold fitted on the same messages beats chance, a crossed one does not."""
    gains = []
    for seed in range(40):
        scores, protocol = trained(seeds=3, folds=8, messages=60, seed=seed)
        rng = np.random.default_rng(seed)
        noise = [replace(of_seed, validation=rng.normal(size=of_seed.validation.shape)) for of_seed in scores]
        adjusted, classes = adjust(noise, replace(protocol, rule=Rule(kind="macro_f1"))), protocol.out_of_fold.classes
        fitted = adjusted.fit.preferences(adjusted.fit.corrected(adjusted.out_of_fold, protocol)).argmax(axis=1)
        crossed = adjusted.crossed_preferences.argmax(axis=1)
        accuracy = [balanced_accuracy(decided, classes) for decided in (fitted, crossed)]
        gains.append(accuracy)
    own, crossed = np.mean(gains, axis=0)
    assert own > 0.53
    assert abs(crossed - 0.5) < 0.02


def balanced_accuracy(decided: np.ndarray, classes: np.ndarray) -> float:
    return float(np.mean([(decided[classes == label] == label).mean() for label in (0, 1)]))


def test_a_variation_between_trainings_widens_the_intervals() -> None:
    scores, protocol = trained(seeds=4, folds=8, messages=2000)
    level = evaluate(dict(enumerate(scores)), protocol).summary["out_of_fold"]["raw"]["spam.f1"]
    worse = [
        replace(of_seed, validation=of_seed.validation * np.array([1, -1]) ** number) for number, of_seed in enumerate(scores)
    ]
    varied = evaluate(dict(enumerate(worse)), protocol).summary["out_of_fold"]["raw"]["spam.f1"]
    assert varied["high"] - varied["low"] > 3 * (level["high"] - level["low"])
