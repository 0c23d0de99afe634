"""Differences between techniques: what is shown, what is not, and what costs nothing."""

from __future__ import annotations

import math
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
from ballast.evaluation.claims import CONTRADICTED, INCONCLUSIVE, SUPPORTED, Claim, Part, assess_claims, claims, nothing_helps
from ballast.evaluation.comparison import (
    bootstrap_p_value,
    compare,
    holm,
    mcnemar_p_value,
    mcnemar_p_value_over_seeds,
    verdict,
    with_seed_variation,
)
from ballast.evaluation.metrics import macro_f1
from ballast.evaluation.operating_point import macro_f1_offsets
from ballast.evaluation.post_hoc import LinearHead, SplitLogits, post_hoc_logits
from ballast.evaluation.prior_grid import RATIOS, prior_grid
from ballast.evaluation.priors import correct_prior, fit_shift

RNG = np.random.default_rng(0)


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


def test_one_seed_adds_nothing() -> None:
    one = draws(0.9, 0.01, seeds=1)
    np.testing.assert_array_equal(with_seed_variation({"one": one})["one"].values["spam.f1"], one.values["spam.f1"])


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
    assert verdict(0.1, 0.001, 1, **keywords) == "one seed: inconclusive"
    assert verdict(0.1, 0.001, 2, **keywords) == "two seeds: inconclusive"
    assert verdict(0.1, 0.2, 3, **keywords) == "no difference shown"
    assert verdict(0.1, 0.01, 3, **keywords) == "better"
    assert verdict(0.1, 0.01, 3, confidence=0.95, higher_is_better=False) == "worse"


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
    assert found["noisy"]["metrics"]["spam.f1"]["verdict"] == "no difference shown"
    assert found["shifted"]["mcnemar"]["p"] == 1
    lower = compare({"baseline": base, "shifted": shifted}, "baseline", ["spam.f1"], 0.95, frozenset({"spam.f1"}))
    assert lower["shifted"]["metrics"]["spam.f1"]["verdict"] == "worse"


def judged(direction: str, own: float, other: float, *, seeds: int = 3, spread: float = 0.002) -> str:
    claim = Claim(words="", source="", parts=[Part(technique="focal", metric="spam.f1", direction=direction)])
    [found] = assess_claims([claim], {"focal": draws(own, spread, seeds), "baseline": draws(other, spread, seeds)}, 0.95)
    return found["verdict"]


@pytest.mark.parametrize(
    ("direction", "own", "other", "expected"),
    [
        ("higher", 0.95, 0.90, SUPPORTED), ("higher", 0.90, 0.95, CONTRADICTED), ("higher", 0.900, 0.901, INCONCLUSIVE),
        ("lower", 0.90, 0.95, SUPPORTED), ("lower", 0.95, 0.90, CONTRADICTED),
        ("level", 0.900, 0.901, SUPPORTED), ("level", 0.80, 0.90, CONTRADICTED), ("level", 0.881, 0.90, INCONCLUSIVE),
        ("not lower", 0.95, 0.90, SUPPORTED), ("not lower", 0.900, 0.901, SUPPORTED), ("not lower", 0.80, 0.90, CONTRADICTED),
        ("not higher", 0.80, 0.90, SUPPORTED), ("not higher", 0.95, 0.90, CONTRADICTED),
        # Of what a nearly perfect reference lacks, 0.012 is most.
        ("not higher", 0.997, 0.985, CONTRADICTED), ("level", 0.997, 0.985, CONTRADICTED), ("level", 0.9, 0.912, SUPPORTED),
    ],
)  # fmt: skip
def test_claims_are_judged_by_their_intervals(direction: str, own: float, other: float, expected: str) -> None:
    assert judged(direction, own, other) == expected
    assert judged(direction, own, other, seeds=1) == INCONCLUSIVE


def test_a_claim_of_several_parts_needs_them_all() -> None:
    techniques = {
        "baseline": draws(0.90, 0.002),
        "up": draws(0.95, 0.002),
        "down": draws(0.85, 0.002),
        "same": draws(0.901, 0.002),
    }

    def of(*names: str) -> str:
        parts = [Part(technique=name, metric="spam.f1", direction="higher") for name in names]
        return assess_claims([Claim(words="", source="", parts=parts)], techniques, 0.95)[0]["verdict"]

    assert of("up") == SUPPORTED and of("up", "same") == INCONCLUSIVE and of("up", "down") == CONTRADICTED
    assert of("up", "absent") == INCONCLUSIVE
    [absent] = assess_claims(
        [Claim(words="", source="", parts=[Part(technique="absent", metric="spam.f1", direction="higher")])], techniques, 0.95
    )
    assert absent["effect"] is None and "absent" in absent["note"]


def test_the_articles_claims_name_the_rare_class() -> None:
    stated = claims("fraud", tuned=True)
    assert [claim.caveat for claim in stated] == [None] * len(stated)
    assert sum(claim.caveat is not None for claim in claims("fraud", tuned=False)) == 1
    assert len({claim.words for claim in stated}) == len(stated) > 8
    assert {part.metric for claim in stated for part in claim.parts} >= {"fraud.recall", "fraud.f1"}
    assert [part.technique for part in nothing_helps(["a", "b", "c"], "a").parts] == ["b", "c"]


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
    scores = SplitLogits(validation=logits, classes=labels, test=logits)
    production = np.array([0.9, 0.1])
    head = LinearHead(norms=np.array([1.0, 1.0]), bias=np.zeros(2))
    made = post_hoc_logits(scores, production, Calibration(temperature=1.0, bias=np.zeros(2)), production, head)
    assert set(made) == {"logit_adjustment", "temperature", "threshold", "tau_normalisation"}
    np.testing.assert_allclose(made["logit_adjustment"], correct_prior(logits, production, np.array([0.5, 0.5])))
    np.testing.assert_allclose(made["temperature"], logits)
    fair = correct_prior(logits + fit_shift(logits, labels), production, production)
    np.testing.assert_allclose(made["tau_normalisation"], fair)
    assert macro_f1(made["threshold"].argmax(axis=1), labels) >= macro_f1(logits.argmax(axis=1), labels)
    assert set(post_hoc_logits(scores, production, Calibration(temperature=2.0, bias=np.zeros(2)), production, None)) == {
        "logit_adjustment", "temperature", "threshold",
    }  # fmt: skip
    np.testing.assert_allclose(softmax(logit(np.array([[0.2], [0.8]])), axis=0).sum(), 1)


def test_tau_undoes_a_head_whose_norms_follow_the_class_sizes() -> None:
    labels = np.repeat([0, 1], [900, 100])
    fair = RNG.normal(size=(1000, 2)) + 2 * np.eye(2)[labels]
    head = LinearHead(norms=np.array([4.0, 1.0]), bias=np.array([1.0, -1.0]))
    scores = SplitLogits(validation=fair * head.norms + head.bias, classes=labels, test=fair * head.norms + head.bias)
    production = np.array([0.9, 0.1])
    made = post_hoc_logits(scores, production, Calibration(temperature=1.0, bias=np.zeros(2)), production, head)
    plain = macro_f1(scores.test.argmax(axis=1), labels)
    assert macro_f1(made["tau_normalisation"].argmax(axis=1), labels) > plain + 0.05
