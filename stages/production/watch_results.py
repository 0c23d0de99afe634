"""What the file of a watched window holds, from the results of the monitoring functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ballast.monitoring.decision import Policy, WindowDecision
from stages.production.deployed import indices
from stages.store.production_sections import Production


def by_label(values: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Numbers (K,) by label."""
    return dict(zip(labels, map(float, values), strict=True))


def shares(classes: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Shares of the classes (n,), n > 0, by label."""
    return by_label(np.bincount(classes, minlength=len(labels)) / len(classes), labels)


def policy_of(production: Production) -> Policy:
    """The thresholds for a decision, from params.yaml."""
    watch, retrain = production.watch, production.retrain
    return Policy(
        confidence=watch.confidence,
        false_alarm=watch.false_alarm,
        negligible=watch.negligible,
        tolerance=watch.tolerance,
        minimum_labels=retrain.minimum_labels,
        margin=retrain.margin,
    )


def feedback_metrics(rows: pd.DataFrame, labels: list[str]) -> dict[str, Any] | None:
    """Precision, recall and F1 of each class on the labelled messages of a window; None if there are none."""
    rows = rows[rows["label"].isin(labels)]
    if rows.empty:
        return None
    classes = {}
    for label in labels:
        true, predicted = rows["label"] == label, rows["called"] == label
        hits, support, assigned = int((true & predicted).sum()), int(true.sum()), int(predicted.sum())
        metrics = {"precision": (hits, assigned), "recall": (hits, support), "f1": (2 * hits, assigned + support)}
        values = {name: above / below if below else None for name, (above, below) in metrics.items()}
        classes[label] = {**values, "support": support}
    return {"n": len(rows), "share": shares(indices(rows["label"], labels), labels), "classes": classes}


def decision_as_json(verdict: WindowDecision, labels: list[str]) -> dict[str, Any]:
    """The decision on a window, its estimated prior and the tests behind it."""
    estimate = verdict.estimate
    prior = dict.fromkeys(("estimated_prior", "low", "high"))
    if estimate is not None:
        prior = {
            "estimated_prior": by_label(estimate.prior, labels),
            "low": by_label(estimate.low, labels),
            "high": by_label(estimate.high, labels),
        }
    return {
        **prior,
        "decision": verdict.decision,
        "reasons": verdict.reasons,
        "assumption_holds": not verdict.unexplained,
        "findings": [
            {"name": test.name, "p": test.p, "effect": test.effect, "rejects": test.name in verdict.unexplained}
            for test in verdict.findings
        ],
    }
