"""Numbers, names and rules in words, as the pages show them."""

from __future__ import annotations

import doctest
from importlib import import_module
from typing import Any

import pytest

from stages.pages.words import decision_rule, join_words, metric_name, operating_point_rule, percent


@pytest.mark.parametrize("name", ["words", "drawing", "watch.feedback_view", "data_docs.view"])
def test_examples_in_docstrings(name: str) -> None:
    outcome = doctest.testmod(import_module(f"stages.pages.{name}"))
    assert outcome.attempted > 0 and outcome.failed == 0


def test_metrics_have_their_usual_names() -> None:
    names = ["macro_f1", "spam.pr_auc", "card_arrival.recall", "a.b.false_positive_rate", "mcc"]
    assert [metric_name(name) for name in names] == [
        "macro F1",
        "spam PR AUC",
        "card_arrival recall",
        "a.b false positive rate",
        "MCC",
    ]


def test_enumerations_and_percentages() -> None:
    assert [join_words(list(letters)) for letters in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert [percent(share) for share in (0.0, 0.004, 0.5, 0.996)] == ["0%", "0.40%", "50.0%", "99.60%"]


def point(labels: tuple[str, ...], costs: float, **changes: Any) -> dict[str, Any]:
    """An operating point with the given cost of missing the last label; all other errors cost 1."""
    table = {true: {predicted: float(true != predicted) for predicted in labels} for true in labels}
    for predicted in labels[:-1]:
        table[labels[-1]][predicted] = costs
    return {"rule": "f1", "label": labels[-1], "limit": None, "met": True, "costs": table, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "the highest spam F1 on validation"),
        ({"rule": "macro_f1", "label": None}, "the highest macro F1 on validation"),
        ({"rule": "cost", "label": None}, "the lowest expected cost, given the costs in params.yaml"),
        ({"rule": "precision", "limit": 0.9}, "the highest spam recall with a spam precision of at least 0.9 on validation"),
        ({"rule": "budget", "limit": 5}, "at most 5 false alarms per 10,000 other messages on validation"),
        ({"rule": "budget", "limit": 5, "met": False}, "no threshold meets this limit, so the point of highest precision"),
    ],
)
def test_rules_of_operating_points(changes: dict[str, Any], expected: str) -> None:
    assert expected in operating_point_rule(point(("ham", "spam"), 1.0, **changes))


def test_decisions_of_two_and_of_more_classes() -> None:
    two, three = ("ham", "spam"), ("ham", "other", "spam")
    expected = "a message is predicted as spam if its probability of spam exceeds 0.25"
    assert decision_rule(point(two, 3.0), two) == expected
    assert "the probability of spam is multiplied by" in decision_rule(point(three, 3.0), three)
    assert decision_rule(point(three, 3.0, label=None), three) == "the class with the lowest expected cost is predicted"
