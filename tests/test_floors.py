"""Floors of the estimated performance: the decision, the events and what people read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ballast.exceptions import UserError
from ballast.monitoring.decision import Decision, Feedback, Policy, WindowDecision
from ballast.monitoring.estimated_performance import Estimated
from ballast.monitoring.floors import BelowFloor, check_floors, metrics_below, with_floors
from flows.alarms import is_table
from flows.watch import PAYLOAD, decision_markdown, events_of

LABELS = ["ham", "spam"]
POLICY = Policy(confidence=0.95, false_alarm=0.005, negligible=0.01, tolerance=0.15, minimum_labels=20, margin=0.01)
PRECISION = Estimated(value=0.9, low=0.85, high=0.94)
BELOW = BelowFloor(metric="spam.precision", floor=0.95, estimated=PRECISION)
SENTENCE = "the estimated spam.precision is 0.900 (0.850 to 0.940), below its floor of 0.95"


def verdict(decision: Decision) -> WindowDecision:
    return WindowDecision(decision=decision, reasons=["a reason"], estimate=None, findings=[], unexplained=[])


@pytest.mark.parametrize(("floor", "below"), [(0.84, False), (0.9, False), (0.94, False), (0.941, True), (1.0, True)])
def test_only_a_whole_interval_below_the_floor_is_evidence(floor: float, below: bool) -> None:
    assert bool(metrics_below({"spam.precision": PRECISION}, {"spam.precision": floor})) == below


def test_labels_replace_the_estimate_without_them() -> None:
    floors = {"spam.precision": 0.95, "spam.recall": 0.8}
    assert metrics_below({}, floors) == []
    fine, low = Estimated(value=0.97, low=0.94, high=0.99), Estimated(value=0.6, low=0.5, high=0.7)
    assert metrics_below({"spam.precision": PRECISION}, floors, {"spam.precision": fine}) == []
    below = metrics_below({"spam.precision": fine, "spam.recall": fine}, floors, {"spam.recall": low})
    assert [(item.metric, item.by_labels) for item in below] == [("spam.recall", True)]
    decided = with_floors(verdict("steady"), below, Feedback(new_labels=np.array([0, 0]), drops=[]), POLICY, LABELS)
    assert decided.reasons[0] == "spam.recall by labels of the queue is 0.600 (0.500 to 0.700), below its floor of 0.8"


@pytest.mark.parametrize(
    ("decision", "labels", "expected"),
    [
        ("steady", (20, 19), "below_floor"),
        ("steady", (20, 20), "retrain"),
        ("reprior", (20, 20), "reprior"),
        ("retrain", (20, 20), "retrain"),
    ],
)
def test_a_floor_decides_only_about_a_steady_window(decision: Decision, labels: tuple[int, int], expected: str) -> None:
    feedback = Feedback(new_labels=np.array(labels), drops=[])
    decided = with_floors(verdict(decision), [BELOW], feedback, POLICY, LABELS)
    assert decided.decision == expected and SENTENCE in decided.reasons
    assert ("a reason" in decided.reasons) == (decision != "steady")
    assert any("needs 20 new labels" in reason for reason in decided.reasons) == (expected == "below_floor")
    assert with_floors(verdict(decision), [], feedback, POLICY, LABELS) == verdict(decision)


@pytest.mark.parametrize(
    ("metric", "suggested"),
    [
        ("spam.precison", "spam.precision"),
        ("spma.recall", "spam.recall"),
        ("precision", "ham.precision"),
        ("spam.share", "spam."),
    ],
)
def test_a_floor_of_an_unknown_metric_names_the_nearest(metric: str, suggested: str) -> None:
    with pytest.raises(UserError, match=rf"production.watch.floor: no metric '{metric}' can have a floor: .*{suggested}"):
        check_floors("production.watch.floor", {"ham.f1": 0.5, metric: 0.9}, LABELS)


def result(decision: str, *, below: bool = False, withheld: str | None = None, labelled: bool = False) -> dict[str, Any]:
    """A watched window, as its file holds it."""
    shares = {"ham": 0.9, "spam": 0.1}
    estimate = {"value": 0.9, "low": 0.85, "high": 0.94}
    wrong = {"value": 52.31, "low": 20.0, "high": 81.2}
    metrics = {f"{label}.{metric}": estimate for label in LABELS for metric in ("precision", "recall", "f1", "share")}
    metrics |= {f"{label}.wrongly_assigned_per_10000": wrong for label in LABELS}
    measured = {label: {"precision": 0.91, "recall": None, "f1": 0.8, "support": 9} for label in LABELS}
    return {
        "window": "w1",
        "n": 100,
        "model": "0001",
        "labels": LABELS,
        "reasons": ["a reason"],
        "decision": decision,
        **dict.fromkeys(("reference_prior", "estimated_prior", "low", "high"), shares),
        "methods": {"emq": shares, "classify_and_count": shares},
        "feedback": {"n": 60, "classes": measured} if labelled else None,
        "estimated_performance": {
            "metrics": None if withheld else metrics,
            "withheld": withheld,
            "below_floor": {"spam.precision": 0.95} if below else {},
        },
    }


@pytest.mark.parametrize(
    ("decision", "below", "events"),
    [
        ("steady", False, set()),
        ("below_floor", True, {"performance.below_floor"}),
        ("retrain", True, {"class-prior.shifted", "performance.below_floor"}),
        ("reprior", False, {"class-prior.shifted"}),
        ("investigate", False, {"class-prior.shifted"}),
    ],
)
def test_a_floor_has_an_event_of_its_own(decision: str, below: bool, events: set[str]) -> None:
    emitted = events_of(result(decision, below=below))
    assert set(emitted) == events and len(set(emitted.values())) == len(events), "equal ids would hide an event"


def test_chat_shows_reasons_and_the_payload_holds_the_numbers() -> None:
    window = result("below_floor", below=True)
    payload = {key: window[key] for key in PAYLOAD}
    assert payload["estimated_performance"]["metrics"]["spam.precision"]["high"] == 0.94
    assert {key for key, value in payload.items() if is_table(value)} == {"estimated_performance"}


def test_the_artifact_shows_estimates_beside_labels_or_why_there_are_none() -> None:
    text = decision_markdown(result("steady", labelled=True))
    assert "(interval; in brackets: 60 labelled messages)" in text
    assert "| spam | 0.900 (0.850 to 0.940) [0.910] | 0.900 (0.850 to 0.940) |" in text
    assert "52.3 (20.0 to 81.2)" in text and "Expected cost" not in text
    assert "[" not in decision_markdown(result("steady"))
    contradicted = {"disagrees": ["spam.recall"], "metrics": {"spam.recall": {"value": 0.7, "low": 0.6, "high": 0.8}}}
    window = result("steady") | {"labelled_performance": contradicted}
    assert decision_markdown(window).endswith("Labels of the queue contradict spam.recall: 0.700 (0.600 to 0.800)")
    withheld = decision_markdown(result("investigate", withheld="the window has no messages"))
    assert withheld.endswith("The estimated performance is withheld: the window has no messages")


def test_a_label_stays_in_its_cell() -> None:
    window = result("steady")
    window["labels"] = ["a|b", "spam"]
    metrics = window["estimated_performance"]["metrics"]
    window["estimated_performance"]["metrics"] |= {name.replace("ham", "a|b"): value for name, value in metrics.items()}
    for key in ("reference_prior", "estimated_prior", "low", "high"):
        window[key] = {"a|b": 0.9, "spam": 0.1}
    window["methods"] = {method: {"a|b": 0.9, "spam": 0.1} for method in ("emq", "classify_and_count")}
    assert decision_markdown(window).count("| a\\|b |") == 2


def test_a_decision_is_replaced_and_nothing_else() -> None:
    before = verdict("steady")
    after = with_floors(before, [BELOW], Feedback(new_labels=np.array([0, 0]), drops=[]), POLICY, LABELS)
    assert replace(after, decision=before.decision, reasons=before.reasons) == before
