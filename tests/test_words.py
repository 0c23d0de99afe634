"""Numbers, names and rules in words, as the pages show them."""

from __future__ import annotations

import doctest
from importlib import import_module
from typing import Any

import pytest

from stages.pages.words import decision_rule, join_words, limit_words, metric_name, operating_point_rule, percent, review_words


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


ANSWER = {"confidence": 0.95, "holds": True, "units": 20, "needed": None, "of_label": True}
GUARANTEED = {"rule": "recall", "limit": 0.9, "guarantee": ANSWER}
REFUSED = {**GUARANTEED, "met": False, "guarantee": {**ANSWER, "holds": False, "needed": 29}}
HOPELESS = {**REFUSED, "rule": "budget", "guarantee": {**ANSWER, "holds": False, "units": 800, "of_label": False}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "the highest spam F1 on the held-out messages"),
        ({"rule": "macro_f1", "label": None}, "the highest macro F1 on the held-out messages"),
        ({"rule": "cost", "label": None}, "the lowest expected cost, given the costs in params.yaml"),
        (
            {"rule": "precision", "limit": 0.9},
            "the highest spam recall with a spam precision of at least 0.9 on the held-out messages",
        ),
        ({"rule": "budget", "limit": 5}, "at most 5 false alarms per 10,000 other messages on the held-out messages"),
        ({"rule": "recall", "limit": 0.9}, "the highest spam precision with a spam recall of at least 0.9"),
        ({"rule": "f_beta", "beta": 2.0}, "the highest spam F-beta with beta 2 on the held-out messages"),
        (GUARANTEED, "the limit holds in production with 95.0% confidence"),
        (REFUSED, "cannot be guaranteed with 95.0% confidence from 20 distinct spam messages; about 29 are needed"),
        (HOPELESS, "from 800 distinct other messages, and at the rates observed no number of messages is enough"),
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


def test_a_review_and_a_probability_in_words() -> None:
    two = ("ham", "spam")
    ends, share = {"low": 0.3, "high": 0.6}, {"value": 0.012, "low": 0.01, "high": 0.015}
    review = {"kind": "budget", "limit": 50.0, "cut": 0.1, "share": share, "thresholds": ends}
    assert review_words(point(two, 1.0, review=review)) == (
        "People decide the least clear 50 of 10,000 messages, with a probability between 0.3 and 0.6 (1.2% of the held-out"
        " messages)."
    )
    bare = {**review, "kind": "cost", "limit": 2.0, "share": None, "thresholds": None}
    expected = "People decide the messages with an expected cost above 2, the cost of a review."
    assert review_words(point(two, 1.0, review=bare)) == expected
    assert limit_words(point(two, 1.0, probability=0.5)) == "the limit holds in production with probability 50.0%"
    # Points of earlier releases have no such keys.
    assert review_words(point(two, 1.0)) == limit_words(point(two, 1.0)) == ""
