"""Operating points against brute force: what each rule promises on validation, and that other programs can apply it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from ballast.evaluation.operating_point import (
    Rule,
    choose_operating_point,
    cost_matrix,
    decide,
    log_margins,
    named_costs,
    threshold,
    weights_to_costs,
)
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


@given(st.integers(2, 4), st.integers(0, 10_000), st.sampled_from(["f1", "precision", "budget"]), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_a_rule_reaches_what_brute_force_does(classes: int, seed: int, kind: str, share: float) -> None:
    logits, labels = messages(seed, classes)
    label = seed % classes
    class_weights = np.random.default_rng(seed).uniform(0.2, 3, size=classes) if seed % 3 else np.ones(classes)
    weights, positive = class_weights[labels], labels == label
    limit = {"f1": None, "precision": share or 0.5, "budget": 3000 * share}[kind]
    found = choose_operating_point(Rule(kind=kind, label=label, limit=limit), logits, labels, class_weights)
    assigned = decide(softmax(logits, axis=1), found.costs) == label
    assert assigned.any() and np.isfinite(found.costs).all()
    possible = brute_force(logits, positive, label, weights)
    reached = measured(assigned, positive, weights)

    def keeps(each: dict[str, float]) -> bool:
        if kind == "f1":
            return True
        within = each["precision"] >= limit - 1e-9 if kind == "precision" else each["rate"] <= limit / 10_000 + 1e-9
        return within and each["recall"] > 0

    kept = [each for each in possible if keeps(each)]
    assert found.met == bool(kept) and (keeps(reached) or not kept)
    goal = "f1" if kind == "f1" else "recall" if kept else "precision"
    assert math.isclose(reached[goal], max(each[goal] for each in kept or possible))


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
