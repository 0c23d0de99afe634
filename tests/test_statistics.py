"""Metrics, intervals, priors, calibration and selection, each against an independent computation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logit, softmax
from scipy.stats import norm
from sklearn import metrics as reference

from ballast.evaluation import bootstrap
from ballast.evaluation.bootstrap import (
    GROUPS_IN_CACHE,
    bootstrap_draws,
    percentile_interval,
    resample_counts,
    to_column_major,
    wilson_interval,
)
from ballast.evaluation.calibration import fit_calibration
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.evaluate import evaluate
from ballast.evaluation.metrics import Metrics, bounds, metric_names
from ballast.evaluation.priors import FittedPrior, correct_prior, effective_prior, fit_prior, fit_shift
from ballast.evaluation.protocol import Labelled, Protocol, SeedScores
from ballast.evaluation.ranking import one_vs_rest
from ballast.evaluation.statistic import LabelledScores
from benchmarks.planted import safety_of

RNG = np.random.default_rng(0)


def scored(classes: int, size: int = 400, seed: int = 0) -> LabelledScores:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.choice(classes, size - classes, p=softmax(-np.arange(classes)))])
    logits = rng.normal(size=(size, classes)) + 1.5 * np.eye(classes)[labels]
    return LabelledScores(
        [f"c{label}" for label in range(classes)], labels, logits, rng.integers(size // 2, size=size), np.ones(classes)
    )


def numbered(each: LabelledScores) -> LabelledScores:
    return LabelledScores(
        each.names, each.labels, each.logits, np.unique(each.groups, return_inverse=True)[1], each.class_weights
    )


def expected_metrics(labels: np.ndarray, logits: np.ndarray, names: list[str], weights: np.ndarray) -> dict[str, float]:
    """The same numbers from scikit-learn."""
    probability = softmax(logits, axis=1)
    predicted = logits.argmax(axis=1)
    keywords = {"sample_weight": weights, "zero_division": 0}
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=range(len(names)), **keywords
    )
    values = {
        "accuracy": reference.accuracy_score(labels, predicted, sample_weight=weights),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted, sample_weight=weights),
        "macro_f1": f1.mean(),
        "weighted_f1": (f1 * support).sum() / support.sum(),
        "mcc": reference.matthews_corrcoef(labels, predicted, sample_weight=weights),
        "log_loss": reference.log_loss(labels, probability, sample_weight=weights, labels=range(len(names))),
        "brier": np.average(((probability - np.eye(len(names))[labels]) ** 2).sum(axis=1), weights=weights),
    }
    for label, name in enumerate(names):
        positive, score = labels == label, one_vs_rest(log_softmax(logits, axis=1), label)
        values |= {
            f"{name}.precision": precision[label],
            f"{name}.recall": recall[label],
            f"{name}.f1": f1[label],
            f"{name}.support": support[label],
            f"{name}.pr_auc": reference.average_precision_score(positive, score, sample_weight=weights),
            f"{name}.roc_auc": reference.roc_auc_score(positive, score, sample_weight=weights),
            f"{name}.mean_probability": np.average(probability[:, label], weights=weights),
            f"{name}.share": np.average(predicted == label, weights=weights),
            f"{name}.false_positive_rate": np.average(predicted[~positive] == label, weights=weights[~positive]),
        }
    return values


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_agree_with_scikit_learn(classes: int) -> None:
    each = numbered(scored(classes))
    class_weights = RNG.uniform(0.5, 2, size=classes)
    weights = class_weights[each.labels]
    each = LabelledScores(each.names, each.labels, each.logits, each.groups, class_weights)
    values = Metrics(each)(np.ones((1, each.groups.max() + 1)))
    assert set(values) == set(metric_names(each.names))
    for name, expected in expected_metrics(each.labels, each.logits, list(each.names), weights).items():
        assert math.isclose(values[name][0], expected, rel_tol=1e-9, abs_tol=1e-9), name


def test_metrics_of_a_resample_are_those_of_the_repeated_rows() -> None:
    each = numbered(scored(3, size=120))
    [counts] = list(resample_counts(each.groups.max() + 1, 4, seed=1))
    values = Metrics(each)(counts)
    for draw, count in enumerate(counts):
        rows = np.repeat(np.arange(len(each.labels)), count[each.groups].astype(int))
        expected = expected_metrics(each.labels[rows], each.logits[rows], list(each.names), np.ones(len(rows)))
        for name in ("macro_f1", "mcc", "c1.pr_auc", "c2.roc_auc", "log_loss", "c0.precision"):
            assert math.isclose(values[name][draw], expected[name], rel_tol=1e-6, abs_tol=1e-9), name


def test_ties_and_constant_scores_rank_as_in_scikit_learn() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1])
    for column in ([0.0] * 6, [0, 1, 1, 2, 2, 2]):
        logits = np.stack([np.zeros(6), np.array(column, dtype=float)], axis=1)
        values = Metrics(LabelledScores(["no", "yes"], labels, logits, np.arange(6), np.ones(2)))(np.ones((1, 6)))
        assert math.isclose(values["yes.pr_auc"][0], reference.average_precision_score(labels, column))
        assert math.isclose(values["yes.roc_auc"][0], reference.roc_auc_score(labels, column))


def test_binned_ranking_agrees_with_the_exact_one() -> None:
    each = scored(2, size=60_000)
    each = LabelledScores(each.names, each.labels, each.logits, np.arange(60_000), each.class_weights)
    values = Metrics(each)(np.ones((1, 60_000)))
    score, positive = one_vs_rest(log_softmax(each.logits, axis=1), 1), each.labels == 1
    assert math.isclose(values["c1.pr_auc"][0], reference.average_precision_score(positive, score), abs_tol=1e-3)
    assert math.isclose(values["c1.roc_auc"][0], reference.roc_auc_score(positive, score), abs_tol=1e-3)


@pytest.mark.parametrize(("size", "rare"), [(50_000, 10), (30_000, 6_000)])
def test_ranking_of_a_rare_class_among_many_messages(size: int, rare: int) -> None:
    labels = (np.arange(size) < rare).astype(int)
    rng = np.random.default_rng(1)
    for distance in (1.0, 2.0, 9.0):
        score = rng.normal(size=size) + distance * labels
        found = Metrics(LabelledScores(["no", "yes"], labels, np.stack([-score, score], axis=1), np.arange(size), np.ones(2)))(
            np.ones((1, size))
        )
        assert math.isclose(found["yes.pr_auc"][0], reference.average_precision_score(labels, score), abs_tol=1e-3)
        assert math.isclose(found["yes.roc_auc"][0], reference.roc_auc_score(labels, score), abs_tol=1e-3)


def test_wilson_counts_groups_and_not_their_weights() -> None:
    labels = np.repeat([0, 1], [500, 100])
    logits = 20.0 * np.eye(2)[labels]
    # Two messages of each class are one group.
    each = LabelledScores(["ham", "spam"], np.tile(labels, 2), np.tile(logits, (2, 1)), np.arange(1200) // 2, np.ones(2))
    share = np.array([5, 1]) / 6
    for production in (share, np.array([0.5, 0.5]), np.array([0.99, 0.01])):
        found = evaluate({0: seed_scores(each, share)}, protocol(each, production)).summary["pooled"]["corrected"]
        low, _ = wilson_interval(1.0, 50, 0.95)
        for metric in ("spam.recall", "spam.precision"):
            assert found[metric]["value"] == 1 and math.isclose(found[metric]["low"], low)
        assert found["spam.f1"]["value"] == 1 and math.isclose(found["spam.f1"]["low"], 2 * low / (1 + low))


def test_intervals_stay_where_metrics_can_be() -> None:
    """Three seeds of which one is poor: Student's t with two degrees of freedom reaches far."""
    labels, good = gaussians(600, share=0.1, seed=0, prior=0.1)
    poor = good * np.array([1.0, -1.0])
    each = LabelledScores(["ham", "spam"], labels, good, np.arange(600), np.ones(2))
    scores = {seed: seed_scores(replace(each, logits=logits), None) for seed, logits in enumerate((good, good, poor))}
    found = evaluate(scores, protocol(each, np.array([0.9, 0.1]), seeds=3)).summary["pooled"]
    touched = 0
    for family in ("raw", "corrected", "operating_point"):
        for name, value in found[family].items():
            least, most = bounds(name)
            assert least <= value["low"] <= value["value"] <= value["high"] <= most, name
            touched += value["high"] == most
    assert touched > 3


def test_a_class_that_a_sample_does_not_hold_counts_for_nothing() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    each = LabelledScores(["a", "b", "c"], labels, 9.0 * np.eye(3)[[0, 1, 1, 1, 2]], np.arange(5), np.ones(3))
    found = Metrics(each)(np.array([[1.0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]))["macro_f1"]
    rows = [0, 1, 2, 3]
    expected = [
        reference.f1_score(labels[held], np.array([0, 1, 1, 1, 2])[held], average="macro") for held in (rows, [*rows, 4])
    ]
    np.testing.assert_allclose(found, expected)


def test_ece_by_hand() -> None:
    logits = logit(np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6]))
    each = LabelledScores(
        ["no", "yes"], np.array([1, 1, 1, 0, 1, 0]), np.stack([np.zeros(6), logits], axis=1), np.arange(6), np.ones(2)
    )
    assert math.isclose(Metrics(each)(np.ones((1, 6)))["ece"][0], (4 * abs(0.9 - 0.75) + 2 * abs(0.6 - 0.5)) / 6)


@pytest.mark.parametrize("groups", [1, GROUPS_IN_CACHE, 2 * GROUPS_IN_CACHE + 5])
def test_a_block_stored_by_column_is_the_same_block(groups: int) -> None:
    block = np.random.default_rng(0).integers(9, size=(3, groups)).astype(np.float32)
    copied = to_column_major(block)
    assert copied.flags.f_contiguous and copied.dtype == block.dtype
    np.testing.assert_array_equal(copied, block)


def test_resamples_draw_as_many_groups_as_there_are() -> None:
    blocks = list(resample_counts(50, 2000, seed=3))
    counts = np.concatenate(blocks)
    assert counts.shape == (2000, 50) and np.all(counts.sum(axis=1) == 50)
    assert abs(counts.var() - 49 / 50) < 0.02
    np.testing.assert_array_equal(counts, np.concatenate(list(resample_counts(50, 2000, seed=3))))


def test_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    values = RNG.normal(size=500)
    draws = bootstrap_draws(lambda counts: {"mean": counts @ values / counts.sum(axis=1)}, 500, 2000, 0)["mean"]
    low, high = percentile_interval(draws, 0.95)
    margin = 1.96 * values.std() / math.sqrt(500)
    assert math.isclose(high - low, 2 * margin, rel_tol=0.08)
    assert low < values.mean() < high


def test_resampling_groups_widens_the_interval_when_rows_repeat() -> None:
    """Ten copies of each message carry no more information than one."""
    each = scored(2, size=100)
    tenfold = {"labels": np.tile(each.labels, 10), "logits": np.tile(each.logits, (10, 1))}
    widths = []
    for groups in (np.tile(np.arange(100), 10), np.arange(1000)):
        metrics = Metrics(LabelledScores(each.names, tenfold["labels"], tenfold["logits"], groups, np.ones(2)))
        low, high = percentile_interval(bootstrap_draws(metrics, groups.max() + 1, 500, 0)["accuracy"], 0.95)
        widths.append(high - low)
    assert widths[0] > 2.5 * widths[1]


def test_wilson_interval_has_width_at_the_ends() -> None:
    low, high = wilson_interval(1.0, 131, 0.95)
    assert math.isclose(low, 131 / (131 + norm.ppf(0.975) ** 2)) and high == 1
    assert wilson_interval(0.0, 10, 0.95)[0] == 0 and wilson_interval(0.0, 0, 0.95) == (0, 1)


priors = st.lists(st.floats(0.02, 1), min_size=3, max_size=3).map(lambda shares: np.array(shares) / sum(shares))


@given(priors, priors)
@settings(max_examples=50, deadline=None)
def test_correction_is_the_identity_for_one_prior_and_undone_by_its_inverse(first: np.ndarray, second: np.ndarray) -> None:
    logits = np.random.default_rng(1).normal(size=(20, 3))
    np.testing.assert_allclose(correct_prior(logits, first, first), logits)
    np.testing.assert_allclose(correct_prior(correct_prior(logits, first, second), second, first), logits, atol=1e-12)


def gaussians(size: int, share: float, seed: int, prior: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a share of positives and logits that are exact posteriors under a prior."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < share).astype(int)
    evidence = 2 * (rng.normal(size=size) + 2 * labels) - 2
    return labels, np.stack([np.zeros(size), evidence + math.log(prior / (1 - prior))], axis=1)


def test_corrected_posteriors_are_those_of_the_target_prior() -> None:
    labels, logits = gaussians(200_000, share=0.1, seed=0, prior=0.5)
    corrected = softmax(correct_prior(logits, np.array([0.5, 0.5]), np.array([0.9, 0.1])), axis=1)[:, 1]
    sure = (corrected > 0.45) & (corrected < 0.55)
    assert abs(labels[sure].mean() - 0.5) < 0.03
    assert abs(corrected.mean() - 0.1) < 0.003


def test_fitted_shift_makes_mean_probabilities_the_class_shares() -> None:
    each = scored(4)
    shifted = softmax(each.logits + fit_shift(each.logits, each.labels), axis=1)
    np.testing.assert_allclose(shifted.mean(axis=0), np.bincount(each.labels) / len(each.labels), atol=1e-8)


def test_fitted_shift_survives_saturated_logits() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    logits = np.where(np.eye(2)[labels] > 0, 40.0, -40.0)
    logits[:3] *= -1
    fitted = fit_prior(logits, labels, np.arange(100), confidence=0.95)
    assert np.isfinite([fitted.prior, fitted.low, fitted.high]).all()
    assert np.all((fitted.low <= fitted.prior) & (fitted.prior <= fitted.high))


def test_fitted_prior_finds_the_prior_of_the_posteriors_and_its_interval_covers() -> None:
    hits = 0
    for seed in range(200):
        labels, logits = gaussians(600, share=0.13, seed=seed, prior=0.7)
        fitted = fit_prior(logits, labels, np.arange(600), confidence=0.95)
        hits += fitted.contains(np.array([0.3, 0.7]))
    assert 180 <= hits <= 199
    labels, logits = gaussians(200_000, share=0.13, seed=0, prior=0.7)
    assert abs(fit_prior(logits, labels, np.arange(len(labels)), confidence=0.95).prior[1] - 0.7) < 0.01


def test_the_joint_interval_of_many_classes_covers_them_all() -> None:
    shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03])
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = rng.choice(8, size=600, p=shares)
        noisy = 2 * np.eye(8)[labels] + rng.normal(size=(600, 8))
        # Of classes that differ by a shift in one direction each the log odds are 2 x scores.
        logits = 2 * noisy + np.log(shares)
        hits += fit_prior(logits, labels, np.arange(600), confidence=0.95).contains(shares)
    assert hits >= 88


def test_seeds_are_no_more_information_about_the_prior() -> None:
    labels, logits = gaussians(600, share=0.13, seed=0, prior=0.13)
    once = fit_prior(logits, labels, np.arange(600), confidence=0.95)
    tiled = (np.tile(logits, (5, 1)), np.tile(labels, 5), np.tile(np.arange(600), 5))
    five = fit_prior(*tiled, confidence=0.95, copies=5)
    for end in ("low", "prior", "high"):
        np.testing.assert_allclose(getattr(five, end), getattr(once, end))


def test_mean_predicted_share_is_not_the_effective_prior() -> None:
    labels, logits = gaussians(50_000, share=0.1, seed=0, prior=0.5)
    separable = logits * 1.0
    separable[:, 1] += np.where(labels == 1, 12, -12)
    assert abs(softmax(separable, axis=1)[:, 1].mean() - 0.1) < 0.01


def test_declared_prior_is_used_unless_the_measurement_contradicts_it() -> None:
    labels, logits = gaussians(3000, share=0.13, seed=0, prior=0.5)
    fitted = fit_prior(logits, labels, np.arange(3000), confidence=0.95)
    np.testing.assert_array_equal(effective_prior(np.array([0.5, 0.5]), fitted), [0.5, 0.5])
    np.testing.assert_array_equal(effective_prior(np.array([0.9, 0.1]), fitted), fitted.prior)
    np.testing.assert_array_equal(effective_prior(None, fitted), fitted.prior)


def test_calibration_recovers_temperature_and_bias() -> None:
    labels, logits = gaussians(50_000, share=0.3, seed=0, prior=0.3)
    distorted = 2.5 * (logits - np.array([0.4, -0.4]))
    calibration = fit_calibration(distorted, labels)
    assert math.isclose(calibration.temperature, 2.5, rel_tol=0.03)
    np.testing.assert_allclose(calibration.bias, [0.4, -0.4], atol=0.03)
    np.testing.assert_allclose(softmax(calibration.apply(distorted), axis=1), softmax(logits, axis=1), atol=0.02)


def test_calibration_of_separable_scores_stays_finite() -> None:
    labels = np.array([0] * 50 + [1] * 5)
    calibration = fit_calibration(np.where(np.eye(2)[labels] > 0, 5.0, -5.0), labels)
    assert 0.05 <= calibration.temperature <= 20 and np.isfinite(calibration.bias).all()


def protocol(each: LabelledScores, production_prior: np.ndarray, resamples: int = 200, seeds: int = 1) -> Protocol:
    """The first half is held out from all seeds; the second half is test."""
    half = len(each.labels) // 2
    return Protocol(
        names=each.names,
        out_of_fold=out_of_fold([np.arange(half)] * seeds, each.labels, each.groups),
        test=Labelled(classes=each.labels[half:], groups=np.unique(each.groups[half:], return_inverse=True)[1]),
        production_prior=production_prior,
        resamples=resamples,
        confidence=0.95,
        seed=0,
    )


def seed_scores(each: LabelledScores, declared: np.ndarray | None) -> SeedScores:
    half = len(each.labels) // 2
    return SeedScores(
        validation=each.logits[:half],
        validation_rows=np.arange(half),
        test=each.logits[half:],
        train=each.logits[:half],
        train_classes=each.labels[:half],
        declared_prior=declared,
    )


def test_evaluation_pools_seeds_and_holds_every_metric() -> None:
    first, second = scored(3, size=1200, seed=0), scored(3, size=1200, seed=0)
    second = LabelledScores(first.names, first.labels, second.logits * 0.5, first.groups, first.class_weights)
    share = np.bincount(first.labels) / len(first.labels)
    summary = evaluate({0: seed_scores(first, share), 4: seed_scores(second, share)}, protocol(first, share, seeds=2)).summary
    assert set(summary["seeds"]) == {"0", "4"}
    for family in ("raw", "corrected", "operating_point"):
        pooled, held_out = summary["pooled"][family], summary["out_of_fold"][family]
        assert set(pooled) == set(held_out)
        if family != "operating_point":
            assert set(pooled) == set(metric_names(first.names))
        for name, value in pooled.items():
            assert value["low"] <= value["value"] <= value["high"], name
            assert held_out[name]["low"] <= held_out[name]["value"] <= held_out[name]["high"], name
            mean = np.mean([summary["seeds"][seed][family][name] for seed in ("0", "4")])
            assert math.isclose(value["value"], mean), name
    assert np.sum(summary["seeds"]["0"]["confusion"]["raw"]) == 600
    assert summary["fitted"]["operating_point"]["rule"] == "macro_f1"
    # Two scores of each of 600 messages.
    assert sum(summary["out_of_fold"]["messages"].values()) == 1200


def test_a_technique_is_safe_when_its_posteriors_are_right_for_production() -> None:
    labels, logits = gaussians(6000, share=0.1, seed=0, prior=0.5)
    each = LabelledScores(["ham", "spam"], labels, logits, np.arange(6000), np.ones(2))
    for production, safe in (([0.5, 0.5], "safe"), ([0.9, 0.1], "unsafe")):
        found = evaluate({0: seed_scores(each, None)}, protocol(each, np.array(production), resamples=100)).summary
        assert found["fitted"]["safe"] == safe


def test_whether_a_technique_is_safe_stays_unknown_when_no_message_is_close_to_the_border() -> None:
    labels = np.repeat([0, 1], 100)
    logits = np.where(labels == 1, 40.0, -40.0)[:, None] * np.array([-0.5, 0.5])
    for share in (0.01, 0.5, 0.99):
        fitted = fit_prior(logits, labels, np.arange(200), confidence=0.95)
        assert fitted.safety(np.array([1 - share, share]), 1.5) == "unknown"


@pytest.mark.parametrize("rare", [65, 1000])
def test_posteriors_for_equal_shares_are_never_safe_and_right_ones_become_safe(rare: int) -> None:
    production, draws = 0.13, 30
    answers = {
        prior: [safety_of(rare, production, prior, distance=3.0, seed=seed) for seed in range(draws)]
        for prior in (production, 0.5)
    }
    assert "safe" not in answers[0.5]
    assert "unsafe" not in answers[production]
    if rare == 1000:
        assert set(answers[0.5]) == {"unsafe"} and answers[production].count("safe") >= 29
    else:
        assert answers[production].count("unknown") > 10


def test_safety_of_many_classes_needs_every_class() -> None:
    fitted = FittedPrior(
        prior=np.array([0.6, 0.3, 0.1]), low=np.array([0.58, 0.28, 0.09]), high=np.array([0.62, 0.32, 0.11]), joint=1.2
    )
    assert fitted.safety(np.array([0.6, 0.3, 0.1]), 1.5) == "safe"
    assert fitted.safety(np.array([0.63, 0.3, 0.07]), 1.5) == "unknown"
    assert fitted.safety(np.array([0.66, 0.3, 0.04]), 1.5) == "unsafe"
    assert fitted.safety(np.array([0.6, 0.3, 0.1]), 1.05) == "unknown"


def test_corrected_metrics_describe_production() -> None:
    """The same posteriors at ten times the share of the rare class: precision rises as Bayes' rule says."""
    labels, logits = gaussians(20_000, share=0.05, seed=0, prior=0.05)
    each = LabelledScores(["ham", "spam"], labels, logits, np.arange(20_000), np.ones(2))
    declared = np.array([0.95, 0.05])
    found = evaluate({0: seed_scores(each, declared)}, protocol(each, np.array([0.5, 0.5]))).summary["pooled"]["corrected"]
    fresh_labels, fresh_logits = gaussians(200_000, share=0.5, seed=1, prior=0.5)
    predicted = fresh_logits.argmax(axis=1)
    assert abs(found["spam.precision"]["value"] - reference.precision_score(fresh_labels, predicted)) < 0.02
    assert abs(found["spam.recall"]["value"] - reference.recall_score(fresh_labels, predicted)) < 0.03
    assert abs(found["spam.mean_probability"]["value"] - 0.5) < 0.02


def test_resamples_of_many_groups_come_many_at_a_time_and_are_those_of_any_other_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap.resample_counts(50, 70, seed=3)))
    # As with groups by the million: each block passes over all of them, so that there must not be one for each resample.
    monkeypatch.setattr(bootstrap, "COUNTS_AT_ONCE", 50)
    blocks = list(bootstrap.resample_counts(50, 70, seed=3))
    assert len(blocks) == 3
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
