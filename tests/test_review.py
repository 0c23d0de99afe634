"""Review bands and cost curves against their definitions, and with planted truths."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, softmax
from scipy.stats import norm

from ballast.evaluation.cost_curve import COST_RATIOS, cost_curve
from ballast.evaluation.costs import decide, expected_costs, threshold
from ballast.evaluation.evaluate import evaluate
from ballast.evaluation.operating_point import choose_operating_point, point_as_json, rule_from_json
from ballast.evaluation.review import Review, ReviewBand, band_thresholds, fit_review, review_from_json, review_mask
from ballast.evaluation.review_curve import review_curve
from ballast.evaluation.rules import Rule
from ballast.evaluation.uncertainty import with_uncertainty
from tests.test_out_of_fold import NAMES, trained


def drawn(seed: int, classes: int, size: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors and classes of messages, some of them tied, and random costs with free correct decisions."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=size - classes)])
    logits = (2 * rng.normal(size=(size, classes)) + 3 * np.eye(classes)[labels]).round(1)
    costs = rng.uniform(0.5, 4, size=(classes, classes)) * (1 - np.eye(classes))
    return softmax(logits, axis=1), labels, costs


@given(st.integers(2, 5), st.integers(0, 10_000), st.floats(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_budget_takes_the_least_clear_messages_and_no_more(classes: int, seed: int, budget: float) -> None:
    posteriors, labels, costs = drawn(seed, classes)
    weights = np.random.default_rng(seed).uniform(0.2, 3, size=classes)[labels]
    band = fit_review(Review(kind="budget", limit=budget), posteriors, costs, weights)
    reviewed = review_mask(posteriors, costs, band)
    assert weights[reviewed].sum() / weights.sum() <= budget / 10_000 + 1e-9
    ordered = np.sort(expected_costs(posteriors, costs), axis=1)
    margin = ordered[:, 1] - ordered[:, 0]
    if reviewed.any() and not reviewed.all():
        assert margin[reviewed].max() < margin[~reviewed].min()
    if not reviewed.all():
        # The next message, with all that are tied with it, exceeds the budget.
        wider = margin <= margin[~reviewed].min() + 1e-12
        assert weights[wider].sum() / weights.sum() > budget / 10_000


@given(st.integers(2, 5), st.integers(0, 10_000), st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_cost_of_review_makes_every_decision_cheapest(classes: int, seed: int, cost: float) -> None:
    posteriors, labels, costs = drawn(seed, classes)
    band = fit_review(Review(kind="cost", limit=cost), posteriors, costs, np.ones(len(labels)))
    reviewed = review_mask(posteriors, costs, band)
    automatic = expected_costs(posteriors, costs).min(axis=1)
    np.testing.assert_allclose(np.where(reviewed, cost, automatic), np.minimum(cost, automatic))


@given(st.integers(0, 10_000), st.sampled_from(["budget", "cost"]), st.floats(0, 3), st.integers(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_band_of_two_classes_lies_between_two_thresholds(seed: int, kind: str, cut: float, label: int) -> None:
    posteriors, _, costs = drawn(seed, 2)
    band = ReviewBand(kind="budget" if kind == "budget" else "cost", limit=cut, cut=cut)
    ends = band_thresholds(band, costs, label)
    low, high = ends or (0.5, 0.5)
    inside = (posteriors[:, label] > low) & (posteriors[:, label] < high)
    close = np.minimum(np.abs(posteriors[:, label] - low), np.abs(posteriors[:, label] - high)) < 1e-9
    np.testing.assert_array_equal(inside[~close], review_mask(posteriors, costs, band)[~close])
    if ends is not None and low > 0 and high < 1:
        assert low <= threshold(costs, label) <= high


def test_a_review_is_fitted_written_and_read_again() -> None:
    posteriors, labels, _ = drawn(1, 2, size=2000)
    logits = np.log(posteriors)
    rule = Rule(kind="f1", label=1, review=Review(kind="budget", limit=500))
    point = choose_operating_point(rule, logits, labels, np.ones(2))
    point = with_uncertainty(point, rule, logits, labels, np.ones(2), np.arange(len(labels)))
    written = point_as_json(point, rule, ["ham", "spam"])["review"]
    assert written["kind"] == "budget" and written["limit"] == 500
    assert written["thresholds"]["low"] < threshold(point.costs, 1) < written["thresholds"]["high"]
    assert written["share"]["low"] <= written["share"]["value"] <= min(0.05, written["share"]["high"])
    assert written["share"]["value"] > 0.03
    np.testing.assert_array_equal(
        review_mask(posteriors, point.costs, review_from_json(written)), review_mask(posteriors, point.costs, point.review)
    )
    assert review_from_json(None) is None
    with pytest.raises(ValueError, match="expected 'budget' or 'cost'"):
        review_from_json({**written, "kind": "margin"})


def test_the_curve_is_that_of_the_messages_left() -> None:
    posteriors, labels, costs = drawn(2, 3, size=1500)
    class_weights, groups = np.array([1.0, 0.5, 2.0]), np.arange(len(labels)) // 2
    curve = review_curve(posteriors, labels, costs, 2, class_weights, groups)
    weights = class_weights[labels]
    for position, share in enumerate(curve["share"]):
        band = fit_review(Review(kind="budget", limit=10_000 * share), posteriors, costs, weights)
        left = ~review_mask(posteriors, costs, band)
        assigned, member = decide(posteriors, costs) == 2, labels == 2
        hits = weights[left & assigned & member].sum()
        # Tied messages are reviewed together by a band, one by one on the curve.
        assert curve["precision"][position] == pytest.approx(hits / weights[left & assigned].sum(), abs=0.01)
        assert curve["recall"][position] == pytest.approx(hits / weights[left & member].sum(), abs=0.01)
        assert curve["precision_low"][position] <= curve["precision"][position] <= curve["precision_high"][position]
    # People take the mistakes first.
    assert curve["precision"][-1] > curve["precision"][0] + 0.02 and curve["recall"][-1] > curve["recall"][0] + 0.02


def test_a_cost_curve_is_the_cost_of_decisions_and_its_interval_holds_the_truth() -> None:
    """Planted: two normal distributions, with log odds that are right for 20% of the class."""
    distance, share = 2.0, 0.2
    covered = []
    at = (logit(1 / (1 + COST_RATIOS)) - logit(share)) / distance + distance / 2
    curve: dict[str, list[float]] = {}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # Messages have another share of the class than production; each group has two messages with the same score.
        positive = np.repeat(np.arange(600) < 300, 2)
        scores = np.repeat(rng.normal(size=600), 2) + distance * positive
        log_odds = distance * (scores - distance / 2) + logit(share)
        curve = cost_curve(log_odds, positive, np.arange(1200) // 2, share)
        probability_cost = np.array(curve["probability_cost"])
        truth = probability_cost * norm.cdf(at - distance) + (1 - probability_cost) * norm.sf(at)
        covered.append((np.array(curve["low"]) <= truth) & (truth <= np.array(curve["high"])))
    np.testing.assert_allclose(curve["cost_ratio"], COST_RATIOS, rtol=1e-3)
    middle = (probability_cost > 0.2) & (probability_cost < 0.8)
    assert np.mean(np.array(covered)[:, middle]) > 0.88
    # Posteriors that are right never cost more than a constant decision, up to chance.
    assert np.all(np.array(curve["low"])[middle] < np.array(curve["trivial"])[middle])


def test_a_cost_curve_agrees_with_decisions_by_a_cost_matrix() -> None:
    posteriors, labels, _ = drawn(5, 2, size=500)
    ratio, share = 4.0, 0.3
    curve = cost_curve(
        np.diff(np.log(posteriors)).ravel(), labels == 1, np.arange(len(labels)), share, ratios=np.array([ratio, 0.5])
    )
    costs = np.array([[0, 1.0], [ratio, 0]])
    assigned = decide(posteriors, costs) == 1
    expected = share * ratio * (~assigned[labels == 1]).mean() + (1 - share) * assigned[labels == 0].mean()
    assert curve["value"][1] == pytest.approx(expected / (share * ratio + 1 - share), abs=1e-5)
    assert curve["cost_ratio"] == [0.5, 4.0]


def test_an_evaluation_has_the_guarantee_the_review_and_the_curves_of_its_operating_point() -> None:
    scores, protocol = trained(seeds=3, folds=8, messages=400)
    rule = Rule(kind="recall", label=1, limit=0.7, guarantee=0.9, review=Review(kind="budget", limit=200))
    summary = evaluate(dict(enumerate(scores)), replace(protocol, rule=rule)).summary
    point, curves = summary["fitted"]["operating_point"], summary["curves"]
    assert point["met"] and point["guarantee"]["holds"] and point["probability"] >= 0.9
    # Groups have two messages each.
    assert point["guarantee"]["units"] == summary["out_of_fold"]["messages"]["spam"] / 2
    assert point["threshold"]["low"] < point["threshold"]["value"] < point["threshold"]["high"]
    ends = point["review"]["thresholds"]
    assert ends["low"] < point["threshold"]["value"] < ends["high"]
    assert 0 < point["review"]["share"]["low"] <= point["review"]["share"]["value"] <= 0.02
    assert rule_from_json(point, NAMES) == rule
    assert curves["cost"]["label"] == curves["review"]["label"] == "spam"
    assert curves["review"]["recall"][0] == pytest.approx(
        summary["pooled"]["operating_point"]["spam.recall"]["value"], abs=1e-5
    )
    assert json.loads(json.dumps(summary, allow_nan=False))["curves"]["cost"]["value"] == curves["cost"]["value"]
