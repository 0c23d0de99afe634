"""Differences between techniques: what is shown, what is not, and what costs nothing."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.calibration import Calibration
from ballast.evaluation.comparison import (
    bootstrap_p_value,
    compare,
    equivalence_p_value,
    holm,
    mcnemar_p_value,
    mcnemar_p_value_over_seeds,
    verdict,
)
from ballast.evaluation.metrics import macro_f1
from ballast.evaluation.operating_point import macro_f1_offsets
from ballast.evaluation.post_hoc import LinearHead, TrainedScores, post_hoc_logits
from ballast.evaluation.power import DifferenceError, difference_error, needed, smallest_difference, smallest_in_words
from ballast.evaluation.prior_grid import RATIOS, prior_grid
from ballast.evaluation.priors import correct_prior, fit_shift
from ballast.evaluation.seed_variation import BOUND, cross_validated_mean, with_seed_variation

RNG = np.random.default_rng(0)


def of_one_training(logits: np.ndarray, labels: np.ndarray, head: LinearHead | None) -> TrainedScores:
    """Scores of one training whose test messages are its held-out ones."""
    training = np.zeros(len(labels), dtype=np.int64)
    return TrainedScores(out_of_fold=logits, classes=labels, training=training, test=[logits], heads=[head])


def draws(value: float, spread: float, seeds: int = 3, metric: str = "spam.f1", right: float = 0.9) -> Draws:
    """Draws of one metric around a value, by seeds that are right about a share of 1,000 messages."""
    rng = np.random.default_rng(int(1000 * value))
    values = value + spread * rng.normal(size=2000)
    return Draws(values={metric: values}, seeds={metric: np.full(seeds, value)}, correct=rng.random((seeds, 1000)) < right)


def test_seeds_widen_the_draws_by_the_larger_of_their_own_and_the_common_deviation() -> None:
    def with_seeds(name: float, *values: float) -> Draws:
        plain = draws(name, 0.0, seeds=len(values))
        return replace(plain, seeds={"spam.f1": np.array(values)})

    fixed = draws(0.7, 0.0, seeds=5)
    steady, wild = with_seeds(0.9, 0.9, 0.9, 0.9, 0.9, 0.91), with_seeds(0.8, 0.75, 0.80, 0.85, 0.78, 0.82)
    varied = with_seed_variation({"steady": steady, "wild": wild, "fixed": fixed})
    own, common = (
        np.var(wild.seeds["spam.f1"], ddof=1),
        np.mean([np.var(each.seeds["spam.f1"], ddof=1) for each in (steady, wild)]),
    )
    # The variance of Student's t with f degrees of freedom is f / (f - 2): 4 of the wild one's own, 8 of both.
    assert math.isclose(varied["wild"].values["spam.f1"].var(), 4 / 2 * own / 5, rel_tol=0.4)
    assert math.isclose(varied["steady"].values["spam.f1"].var(), 8 / 6 * common / 5, rel_tol=0.4)
    assert abs(np.corrcoef(varied["wild"].values["spam.f1"], varied["steady"].values["spam.f1"])[0, 1]) < 0.1
    np.testing.assert_array_equal(varied["fixed"].values["spam.f1"], fixed.values["spam.f1"])


def test_an_unstable_technique_is_seldom_called_different() -> None:
    """Nothing but seeds varies; one of twenty level techniques varies three times as much as the others."""
    false = 0
    for seed in range(400):
        of_seeds = 0.01 * np.array([3.0, *np.ones(19)])[:, None] * np.random.default_rng(seed).normal(size=(20, 3))
        techniques = {
            f"t{at}": Draws(values={"f1": np.full(400, each.mean())}, seeds={"f1": each}, correct=np.ones((3, 1), bool))
            for at, each in enumerate(of_seeds)
        }
        false += bootstrap_p_value(with_seed_variation(techniques)["t0"].values["f1"]) < 0.05
    assert false < 0.1 * 400


def test_one_seed_is_assumed_to_vary_by_the_bound_or_as_the_others_do() -> None:
    one, other = draws(0.9, 0.01, seeds=1), draws(0.8, 0.01, seeds=1)
    alone = with_seed_variation({"one": one, "other": other})["one"]
    assert math.isclose(alone.values["spam.f1"].std(), math.hypot(0.01, BOUND), rel_tol=0.1)
    assert alone.seed_errors["spam.f1"].degrees == 0 and alone.sampling is one.values
    several = replace(draws(0.8, 0.01, seeds=5), seeds={"spam.f1": np.array([0.79, 0.8, 0.8, 0.8, 0.81])})
    beside = with_seed_variation({"one": one, "several": several})["one"]
    assert math.isclose(beside.seed_errors["spam.f1"].value, np.std(several.seeds["spam.f1"], ddof=1))
    assert beside.seed_errors["spam.f1"].degrees == 4


@pytest.mark.parametrize(("other", "expected"), [(0.0, "worse"), (0.5, "worse"), (0.85, "not shown"), (0.9, "not shown")])
def test_one_seed_shows_large_differences_only(other: float, expected: str) -> None:
    techniques = with_seed_variation({"baseline": draws(0.97, 0.005, seeds=1), "other": draws(other, 0.005, seeds=1)})
    found = compare(techniques, "baseline", ["spam.f1"], 0.95, frozenset())["other"]["metrics"]["spam.f1"]
    assert found["verdict"] == expected


def test_two_seeds_give_verdicts() -> None:
    def two(value: float) -> Draws:
        return replace(draws(value, 0.002, seeds=2), seeds={"spam.f1": np.array([value - 0.001, value + 0.001])})

    values = {"baseline": 0.9, "better": 0.95, **{f"level_{number}": 0.901 + number / 10_000 for number in range(8)}}
    found = compare(
        with_seed_variation({name: two(value) for name, value in values.items()}), "baseline", ["spam.f1"], 0.95, frozenset()
    )
    verdicts = {name: entry["metrics"]["spam.f1"]["verdict"] for name, entry in found.items()}
    assert verdicts == {"better": "better", **{name: "equivalent" for name in values if name.startswith("level")}}


def test_trainings_of_folds_overlap() -> None:
    """Planted: values of folds share a part that the sample variance does not see. The plain standard error misses it."""
    rng, n_folds, share = np.random.default_rng(0), 8, 1 / 7
    covered = {"corrected": 0, "plain": 0}
    for _ in range(2000):
        values = rng.normal(scale=np.sqrt(share)) + rng.normal(size=n_folds)
        mean, error, degrees = cross_validated_mean(values, n_train=7, n_test=1)
        assert degrees == 7
        covered["corrected"] += abs(mean) < 2.365 * error
        covered["plain"] += abs(mean) < 2.365 * values.std(ddof=1) / np.sqrt(n_folds)
    assert 0.93 < covered["corrected"] / 2000 < 0.97 and covered["plain"] / 2000 < 0.9


def test_the_smallest_difference_is_shown_in_four_of_five_comparisons() -> None:
    error = DifferenceError(messages=0.006, seeds=0.004, degrees=40)
    distance, level = smallest_difference(error, level=0.01), 0.01
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(400):
        value = distance + error.messages * rng.normal() + error.seeds * rng.normal()
        drawn = value + error.messages * rng.normal(size=2000) + error.seeds * rng.standard_t(40, size=2000)
        shown += bootstrap_p_value(drawn) < level
    assert 0.74 < shown / 400 < 0.86


def test_enough_messages_and_seeds_make_the_difference_the_smallest_that_can_be_shown() -> None:
    error = DifferenceError(messages=0.01, seeds=0.008, degrees=40)
    for distance in (0.03, 0.02, 0.005):
        found = needed(distance, error, rare=131, seeds=3, level=0.01)
        assert found is not None
        scaled = error.scaled(messages=found.rare / 131, seeds=found.seeds / 3)
        assert smallest_difference(scaled, level=0.01) <= 1.01 * distance
    assert needed(0.0, error, rare=131, seeds=3, level=0.01) is None
    unmeasured = DifferenceError(messages=0.01, seeds=0.07)
    assert needed(0.03, unmeasured, rare=131, seeds=1, level=0.05).seeds == 3
    assert "how much trainings vary" in smallest_in_words("spam F1", "spam", unmeasured, rare=131, seeds=1, level=0.05)


def test_what_does_not_lower_the_smallest_difference_is_not_said_to_lower_it() -> None:
    def words(error: DifferenceError) -> str:
        return smallest_in_words("spam F1", "spam", error, rare=131, seeds=3, level=0.0025)

    # Few trainings vary much: with more messages, the quantile of few degrees of freedom grows faster than the error falls.
    of_trainings = words(DifferenceError(messages=0.002, seeds=0.0025, degrees=4))
    assert "test messages would not lower it noticeably" in of_trainings
    assert re.search("as many seeds would lower this to 0.00", of_trainings)
    of_messages = words(DifferenceError(messages=0.01, seeds=0.0, degrees=4))
    assert "test messages would lower this to 0.0" in of_messages and "seeds would not lower it noticeably" in of_messages


def test_the_error_of_a_difference_has_the_parts_of_its_sources() -> None:
    own = replace(draws(0.9, 0.01), seeds={"spam.f1": np.array([0.89, 0.9, 0.91])})
    other = replace(draws(0.8, 0.02), seeds={"spam.f1": np.array([0.79, 0.8, 0.81])})
    varied = with_seed_variation({"own": own, "other": other})
    error = difference_error(varied["own"], varied["other"], "spam.f1")
    assert math.isclose(error.messages, math.hypot(0.01, 0.02), rel_tol=0.1)
    assert math.isclose(error.seeds, np.sqrt(2 * 0.01**2 / 3)) and 4 <= error.degrees <= 8
    plain = difference_error(own, other, "spam.f1")
    assert plain.seeds == 0


def test_equivalence_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert equivalence_p_value(rng.normal(0, 0.005, 2000), 0.02) < 0.001
    assert equivalence_p_value(rng.normal(0, 0.02, 2000), 0.02) > 0.1
    assert math.isclose(equivalence_p_value(rng.normal(0.01, 0.01, 200_000), 0.02), 0.159, abs_tol=0.01)


def test_bootstrap_p_is_small_only_beyond_zero() -> None:
    assert bootstrap_p_value(RNG.normal(size=2000)) > 0.9 or bootstrap_p_value(RNG.normal(0, 1, 2000)) > 0.9
    assert math.isclose(bootstrap_p_value(RNG.normal(1.96, 1, size=200_000)), 0.05, abs_tol=3e-3)
    assert bootstrap_p_value(np.ones(1999)) == 2 / 2000
    assert bootstrap_p_value(np.zeros(10)) == 1
    # Beyond what 2,000 resamples can count, so that a correction for 50 techniques leaves something to show.
    assert 50 * bootstrap_p_value(RNG.normal(5, 1, size=2000)) < 0.01


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_mid_p_of_the_discordant(gained: int, lost: int) -> None:
    own = np.array([True] * gained + [False] * lost + [True, False])
    other = np.array([False] * gained + [True] * lost + [True, False])
    found = mcnemar_p_value(own, other)
    if gained + lost:
        exact = binomtest(min(gained, lost), gained + lost).pvalue
        assert found <= exact + 1e-12 and found >= 0.4 * exact
    else:
        assert found == 1
    assert math.isclose(found, mcnemar_p_value(other, own))


def test_seeds_share_one_mcnemar_p() -> None:
    same, apart = np.tile([True, False], 50), np.ones(100, bool)
    assert mcnemar_p_value_over_seeds(np.stack([same]), np.stack([same])) == 1
    one = mcnemar_p_value(apart, same)
    assert math.isclose(mcnemar_p_value_over_seeds(np.stack([apart] * 3), np.stack([same] * 3)), 2 * one)


def test_holm_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=10, deadline=None)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    found = holm({str(at): p for at, p in enumerate(p_values)})
    np.testing.assert_allclose(list(found.values()), multipletests(p_values, method="holm")[1])


def test_verdicts_in_words() -> None:
    keywords = {"confidence": 0.95, "higher_is_better": True}
    assert verdict(0.1, 0.2, 1.0, **keywords) == "not shown"
    assert verdict(0.001, 0.2, 0.01, **keywords) == "equivalent"
    assert verdict(0.1, 0.01, 1.0, **keywords) == "better"
    assert verdict(0.001, 0.01, 0.01, **keywords) == "better", "a small difference that is shown"
    assert verdict(0.1, 0.01, 1.0, confidence=0.95, higher_is_better=False) == "worse"


def test_a_comparison_is_paired_and_adjusted() -> None:
    base = draws(0.9, 0.02)
    shifted = Draws(
        values={"spam.f1": base.values["spam.f1"] + 0.01}, seeds={"spam.f1": np.full(3, 0.91)}, correct=base.correct
    )
    noisy = draws(0.905, 0.02)
    found = compare({"baseline": base, "shifted": shifted, "noisy": noisy}, "baseline", ["spam.f1"], 0.95, frozenset())
    assert set(found) == {"shifted", "noisy"}
    certain = found["shifted"]["metrics"]["spam.f1"]
    assert certain["verdict"] == "better" and certain["low"] == pytest.approx(0.01) == certain["high"]
    assert certain["p_adjusted"] == 2 * certain["p"]
    assert found["noisy"]["metrics"]["spam.f1"]["verdict"] == "not shown"
    assert found["shifted"]["mcnemar"]["p"] == 1
    lower = compare({"baseline": base, "shifted": shifted}, "baseline", ["spam.f1"], 0.95, frozenset({"spam.f1"}))
    assert lower["shifted"]["metrics"]["spam.f1"]["verdict"] == "worse"


def test_the_grid_keeps_the_other_classes_shares() -> None:
    share = np.array([0.6, 0.3, 0.1])
    grid = prior_grid(share)
    assert list(grid) == [f"1:{ratio}" for ratio in RATIOS]
    for name, prior in grid.items():
        assert math.isclose(prior.sum(), 1) and math.isclose(prior[2] * int(name[2:]), prior[:2].sum())
        assert math.isclose(prior[0], 2 * prior[1])
    np.testing.assert_array_equal(share, [0.6, 0.3, 0.1])


@given(st.integers(2, 4), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_offsets_raise_macro_f1(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=40)])
    logits = rng.normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    if seed % 2:
        logits = logits.round(1)
    offsets = macro_f1_offsets(logits, labels, np.ones(classes))
    found = f1_score(labels, (logits + offsets).argmax(axis=1), average="macro", zero_division=0)
    plain = f1_score(labels, logits.argmax(axis=1), average="macro", zero_division=0)
    assert found >= plain - 1e-9 and np.isfinite(offsets).all()
    assert math.isclose(found, macro_f1((logits + offsets).argmax(axis=1), labels))
    if classes == 2:
        # Margins that differ by rounding only are tied: no offset could be trusted to part them.
        margins = (logits[:, 1] - logits[:, 0]).round(9)
        cuts = [-np.inf, *np.unique(margins), np.inf]
        best = max(f1_score(labels, (margins >= cut).astype(int), average="macro", zero_division=0) for cut in cuts)
        assert math.isclose(found, best)


def test_arms_do_what_their_names_say() -> None:
    labels = np.repeat([0, 1], [900, 100])
    logits = RNG.normal(size=(1000, 2)) + 2 * np.eye(2)[labels]
    production = np.array([0.9, 0.1])
    head = LinearHead(norms=np.array([1.0, 1.0]), bias=np.zeros(2))
    scores = of_one_training(logits, labels, head)
    made = {
        name: test
        for name, [test] in post_hoc_logits(
            scores, production, Calibration(temperature=1.0, bias=np.zeros(2)), production
        ).items()
    }
    assert set(made) == {"logit_adjustment", "temperature", "threshold", "tau_normalisation"}
    np.testing.assert_allclose(made["logit_adjustment"], correct_prior(logits, production, np.array([0.5, 0.5])))
    np.testing.assert_allclose(made["temperature"], logits)
    fair = correct_prior(logits + fit_shift(logits, labels), production, production)
    np.testing.assert_allclose(made["tau_normalisation"], fair)
    assert macro_f1(made["threshold"].argmax(axis=1), labels) >= macro_f1(logits.argmax(axis=1), labels)
    without_head = of_one_training(logits, labels, None)
    assert set(post_hoc_logits(without_head, production, Calibration(temperature=2.0, bias=np.zeros(2)), production)) == {
        "logit_adjustment", "temperature", "threshold",
    }  # fmt: skip
    np.testing.assert_allclose(softmax(logit(np.array([[0.2], [0.8]])), axis=0).sum(), 1)


def test_tau_undoes_a_head_whose_norms_follow_the_class_sizes() -> None:
    labels = np.repeat([0, 1], [900, 100])
    fair = RNG.normal(size=(1000, 2)) + 2 * np.eye(2)[labels]
    head = LinearHead(norms=np.array([4.0, 1.0]), bias=np.array([1.0, -1.0]))
    scores = of_one_training(fair * head.norms + head.bias, labels, head)
    production = np.array([0.9, 0.1])
    made = post_hoc_logits(scores, production, Calibration(temperature=1.0, bias=np.zeros(2)), production)
    plain = macro_f1(scores.test[0].argmax(axis=1), labels)
    assert macro_f1(made["tau_normalisation"][0].argmax(axis=1), labels) > plain + 0.05
