"""Operating points against brute force: what each rule promises on validation, and that other programs can apply it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from ballast.evaluation.costs import cost_matrix, decide, named_costs, threshold, weights_to_costs
from ballast.evaluation.operating_point import choose_operating_point, point_as_json
from ballast.evaluation.rules import Kind, Rule
from ballast.evaluation.thresholds import all_thresholds, log_margins
from ballast.evaluation.uncertainty import with_uncertainty
from ballast.exceptions import UserError

LABELS = ["ham", "spam", "fraud"]


def messages(seed: int, classes: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes; every other seed has logits with many ties."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=size)])
    logits = rng.normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    return (logits.round(1) if seed % 2 else logits), labels


@given(st.integers(2, 4), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_decisions_cost_the_least(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    posteriors, costs = rng.dirichlet(np.ones(classes), size=30), rng.exponential(size=(classes, classes))
    for row, decided in zip(posteriors, decide(posteriors, costs), strict=True):
        expected = [sum(row[true] * costs[true, predicted] for true in range(classes)) for predicted in range(classes)]
        assert math.isclose(expected[decided], min(expected))
    weights = rng.exponential(size=classes) + 0.1
    np.testing.assert_array_equal(decide(posteriors, weights_to_costs(weights)), (posteriors * weights).argmax(axis=1))
    np.testing.assert_array_equal(decide(posteriors, 1 - np.eye(classes)), posteriors.argmax(axis=1))


@given(st.lists(st.floats(0, 100), min_size=4, max_size=4), st.integers(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_two_classes_have_a_threshold(costs: list[float], label: int, probability: float) -> None:
    matrix = np.array(costs).reshape(2, 2)
    cut = threshold(matrix, label)
    posterior = np.array([[1 - probability, probability] if label else [probability, 1 - probability]])
    expected = (posterior @ matrix)[0]
    if matrix[0, 1] >= matrix[0, 0] and matrix[1, 0] >= matrix[1, 1] and abs(expected[0] - expected[1]) > 1e-9:
        assert (decide(posterior, matrix)[0] == label) == (probability > cut)


def brute_force(logits: np.ndarray, positive: np.ndarray, label: int, weights: np.ndarray) -> list[dict[str, float]]:
    """What every cut gives; scores that differ by rounding only are tied."""
    scores = log_margins(log_softmax(logits, axis=1), label).round(9)
    made = []
    for cut in np.unique(scores):
        assigned = scores >= cut
        made.append(measured(assigned, positive, weights))
    return made


def measured(assigned: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Precision, recall, F1 and false-positive rate of an assignment, as their definitions say."""
    hits, wrong = weights[assigned & positive].sum(), weights[assigned & ~positive].sum()
    return {
        "precision": hits / (hits + wrong),
        "recall": hits / weights[positive].sum(),
        "f1": 2 * hits / (hits + wrong + weights[positive].sum()),
        "rate": wrong / weights[~positive].sum(),
    }


@given(
    st.integers(2, 4),
    st.integers(0, 10_000),
    st.sampled_from(["f1", "f_beta", "precision", "recall", "budget"]),
    st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_a_rule_reaches_what_brute_force_does(classes: int, seed: int, kind: Kind, share: float) -> None:
    logits, labels = messages(seed, classes)
    label = seed % classes
    class_weights = np.random.default_rng(seed).uniform(0.2, 3, size=classes) if seed % 3 else np.ones(classes)
    weights, positive = class_weights[labels], labels == label
    limit = {"precision": share or 0.5, "recall": share or 0.5, "budget": 3000 * share}.get(kind)
    beta = 0.2 + 3 * share
    point = choose_operating_point(Rule(kind=kind, label=label, limit=limit, beta=beta), logits, labels, class_weights)
    assigned = decide(softmax(logits, axis=1), point.costs) == label
    assert assigned.any() and np.isfinite(point.costs).all()
    possible = brute_force(logits, positive, label, weights)
    reached = measured(assigned, positive, weights)
    for result in [*possible, reached]:
        precision, recall = result["precision"], result["recall"]
        result["f_beta"] = (1 + beta**2) * precision * recall / (beta**2 * precision + recall) if recall else 0.0

    def satisfies(result: dict[str, float]) -> bool:
        if limit is None:
            return True
        if kind == "budget":
            return result["rate"] <= limit / 10_000 + 1e-9 and result["recall"] > 0
        return result[kind] >= limit - 1e-9 and result["recall"] > 0

    valid = [result for result in possible if satisfies(result)]
    assert point.met == bool(valid) and (satisfies(reached) or not valid)
    goal = {"f1": "f1", "f_beta": "f_beta", "recall": "precision"}.get(kind, "recall" if valid else "precision")
    assert math.isclose(reached[goal], max(result[goal] for result in valid or possible))


def test_f_beta_of_one_is_f1_and_a_large_beta_asks_for_recall() -> None:
    logits, labels = messages(2, 2, size=400)
    thresholds = all_thresholds(log_margins(log_softmax(logits, axis=1), 1), labels == 1, np.ones(len(labels)))
    np.testing.assert_allclose(thresholds.f_beta(1.0), thresholds.f_beta())
    same = [
        choose_operating_point(rule, logits, labels, np.ones(2)).costs
        for rule in (Rule(kind="f1", label=1), Rule(kind="f_beta", label=1, beta=1.0))
    ]
    np.testing.assert_array_equal(*same)
    at = [
        threshold(choose_operating_point(Rule(kind="f_beta", label=1, beta=beta), logits, labels, np.ones(2)).costs, 1)
        for beta in (0.25, 1.0, 4.0)
    ]
    assert at[0] > at[1] > at[2]


def test_a_floor_that_nothing_keeps_is_said_and_the_class_still_assigned() -> None:
    labels = np.array([0, 1, 0, 1, 0, 0])
    logits = np.stack([np.zeros(6), np.array([3.0, 2.0, 1.0, 0.0, -1.0, -2.0])], axis=1)
    for rule in (Rule(kind="precision", label=1, limit=0.9), Rule(kind="budget", label=1, limit=10)):
        found = choose_operating_point(rule, logits, labels, np.ones(2))
        assert not found.met
        np.testing.assert_array_equal(decide(softmax(logits, axis=1), found.costs), [1, 1, 1, 1, 0, 0])


def test_costs_are_applied_as_given_whatever_the_scores() -> None:
    logits, labels = messages(0, 3)
    costs = np.array([[0, 5, 1], [2, 0, 1], [9, 9, 0.0]])
    found = choose_operating_point(Rule(kind="cost", costs=costs), logits, labels, np.ones(3))
    assert found.met
    np.testing.assert_array_equal(found.costs, costs)


def test_production_shares_move_the_point() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    logits = np.stack([np.zeros(4000), 2 * rng.normal(size=4000) + 2 * labels], axis=1)
    rule = Rule(kind="precision", label=1, limit=0.8)
    even, rare = (
        decide(softmax(logits, axis=1), choose_operating_point(rule, logits, labels, weights).costs).sum()
        for weights in (np.ones(2), np.array([1.8, 0.2]))
    )
    assert rare < even / 2


def test_scores_that_leave_no_doubt_give_finite_costs() -> None:
    labels = np.array([0, 1, 0, 1])
    logits = np.array([[900.0, -900], [-900, 900], [-900, 900], [900, -900]])
    for kind in ("f1", "macro_f1", "precision"):
        found = choose_operating_point(Rule(kind=kind, label=1, limit=0.5), logits, labels, np.ones(2))
        assert np.isfinite(found.costs).all()


def test_costs_by_label() -> None:
    given_costs = {"spam": {"ham": 1, "fraud": 2}, "ham": {"spam": 10, "fraud": 3}, "fraud": {"ham": 50, "spam": 0, "fraud": 0}}
    costs = cost_matrix(given_costs, LABELS)
    np.testing.assert_array_equal(costs, [[0, 10, 3], [1, 0, 2], [50, 0, 0]])
    np.testing.assert_array_equal(cost_matrix(named_costs(costs, LABELS), LABELS), costs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spam": {"ham": 1}}, "misses the cost of predicting 'fraud' for 'spam'"),
        ({"spam": {"ham": 1, "fraud": -2}}, "predicting 'fraud' for 'spam' must be at least 0, not -2"),
        ({"spam": {"ham": 1, "fraud": float("nan")}}, "not nan"),
        ({"spm": {"ham": 1, "fraud": 1}}, "names the label 'spm': did you mean 'spam'?"),
        ({"spam": {"hm": 1}}, "names the label 'hm': did you mean 'ham'?"),
        ({label: dict.fromkeys(LABELS, 1) for label in LABELS}, "no mistake costs more than the correct decision"),
    ],
)
def test_costs_that_cannot_be_used_are_named(change: dict[str, dict[str, float]], said: str) -> None:
    complete = {label: dict.fromkeys(LABELS, 1 + at) | {label: 0} for at, label in enumerate(LABELS)}
    with pytest.raises(UserError) as error:
        cost_matrix({**complete, **change}, LABELS)
    assert said in str(error.value)


def test_the_interval_of_a_threshold_is_as_wide_as_the_thresholds_of_new_messages() -> None:
    """Planted: the spread of thresholds over fresh draws, which the bootstrap of one draw estimates."""

    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], [900, 100])
        return np.column_stack([np.zeros(1000), 3 * rng.normal(size=1000) + 6 * labels - 5]), labels

    for rule in (Rule(kind="f1", label=1), Rule(kind="recall", label=1, limit=0.8), Rule(kind="macro_f1")):
        chosen, covered, widths = [], [], []
        large = [draw(seed) for seed in range(1000, 1030)]
        logits, labels = (np.concatenate(parts) for parts in zip(*large, strict=True))
        truth = threshold(choose_operating_point(rule, logits, labels, np.ones(2)).costs, 1)
        for seed in range(60):
            logits, labels = draw(seed)
            point = choose_operating_point(rule, logits, labels, np.ones(2))
            ends = with_uncertainty(point, rule, logits, labels, np.ones(2), resamples=100).threshold
            assert ends is not None and ends["low"] <= ends["value"] <= ends["high"]
            chosen.append(ends["value"])
            covered.append(ends["low"] <= truth <= ends["high"])
            widths.append(ends["high"] - ends["low"])
        spread = np.subtract(*np.quantile(chosen, [0.975, 0.025]))
        assert 0.5 * spread < np.mean(widths) < 2 * spread
        assert np.mean(covered) >= 0.8


def test_near_duplicates_widen_the_interval() -> None:
    logits, labels = messages(4, 2, size=200)
    copies, groups = np.repeat(logits, 5, axis=0), np.repeat(np.arange(len(labels)), 5)
    rule, classes = Rule(kind="f1", label=1), np.repeat(labels, 5)
    point = choose_operating_point(rule, copies, classes, np.ones(2), groups)
    widths = []
    for of_groups in (None, groups):
        ends = with_uncertainty(point, rule, copies, classes, np.ones(2), of_groups).threshold
        assert ends is not None
        widths.append(ends["high"] - ends["low"])
    assert widths[1] > widths[0]


def test_costs_give_a_threshold_without_width_and_more_classes_give_none() -> None:
    logits, labels = messages(0, 2)
    rule = Rule(kind="cost", costs=np.array([[0, 1.0], [4.0, 0]]))
    point = with_uncertainty(choose_operating_point(rule, logits, labels, np.ones(2)), rule, logits, labels, np.ones(2))
    assert point_as_json(point, rule, LABELS[:2])["threshold"] == {"value": 0.2, "low": 0.2, "high": 0.2}
    logits, labels = messages(0, 3)
    for rule in (Rule(kind="f1", label=2), Rule(kind="macro_f1")):
        point = with_uncertainty(choose_operating_point(rule, logits, labels, np.ones(3)), rule, logits, labels, np.ones(3))
        assert point_as_json(point, rule, LABELS)["threshold"] is None
