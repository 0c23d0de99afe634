"""Precision and recall in production from the labels of the messages that the watch asked to label, over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ballast.monitoring.labelled_quality import LabelledSample, labelled_quality
from stages.production.deployed import indices
from stages.store.files import locked, read_json
from stages.store.project import PROJECT

# The share of a window's messages to label that need a label for the window to count. Fewer labels may be of messages that
# someone noticed, such as complaints, and these are no random part.
LEAST_ANSWERED = 0.5


def other_windows(window: str) -> list[dict[str, Any]]:
    """What the watch wrote about all windows except one."""
    # Under the lock under which windows are deleted.
    with locked(PROJECT.watch / "index.html"):
        return [read_json(path) for path in sorted(PROJECT.watch.glob("*.json")) if path.stem != window]


def labelled_performance(
    model: str, labels: list[str], windows: Sequence[Mapping[str, Any]], feedback: pd.DataFrame, confidence: float
) -> dict[str, Any] | None:
    """Precision and recall of each class, from the windows that a version scored and people labelled.

    Windows of other versions are left out, because those versions decide differently. So are windows with labels of less than
    half of the messages to label. Returns None without any window, or if a stratum has no label, because nothing then stands
    for its messages. A metric is None if no label shows it.
    """
    given = dict(zip(feedback["id"], feedback["label"], strict=True))
    queues = {
        window["window"]: [row for row in window["to_label"] if "inclusion_probability" in row]
        for window in windows
        if window["model"] == model
    }
    labelled = {
        name: rows
        for name, rows in queues.items()
        if rows and np.mean([given.get(row["id"]) in labels for row in rows]) >= LEAST_ANSWERED
    }
    rows = [row for name in sorted(labelled) for row in labelled[name]]
    if {row["stratum"] for row in rows if given.get(row["id"]) in labels} != {row["stratum"] for row in rows} or not rows:
        return None
    classes = indices(pd.Series([given.get(row["id"]) for row in rows], dtype="str"), labels)
    sample = LabelledSample(
        classes=classes,
        predicted=indices(pd.Series([row["predicted"] for row in rows], dtype="str"), labels),
        posteriors=np.array([[row["posteriors"][label] for label in labels] for row in rows]),
        inclusion=np.array([row["inclusion_probability"] for row in rows]),
        sizes=np.array([row["size"] for row in rows]),
        strata=np.array([row["stratum"] for row in rows]),
    )
    metrics = {}
    for label, quality in zip(labels, labelled_quality(sample, confidence=confidence), strict=True):
        for name, estimate in (("precision", quality.precision), ("recall", quality.recall)):
            metrics[f"{label}.{name}"] = None if estimate is None else asdict(estimate)
    return {
        "n": int((classes >= 0).sum()),
        "windows": sorted(labelled),
        "labelled": {label: int((classes == at).sum()) for at, label in enumerate(labels)},
        "metrics": metrics,
    }


def disagreements(labelled: Mapping[str, Any] | None, estimated: Mapping[str, Any] | None) -> list[str]:
    """The recalls whose intervals from labels and from the estimate without labels have nothing in common.

    The labels are of several windows. Recall does not depend on their priors, as precision does.

    >>> low, high = {"value": 0.7, "low": 0.6, "high": 0.8}, {"value": 0.9, "low": 0.85, "high": 0.95}
    >>> disagreements({"metrics": {"spam.recall": low, "spam.precision": low}}, {"spam.recall": high, "spam.precision": high})
    ['spam.recall']
    """
    if labelled is None or estimated is None:
        return []
    pairs = {
        name: (metric, estimated[name])
        for name, metric in labelled["metrics"].items()
        if name.endswith(".recall") and metric is not None and estimated.get(name) is not None
    }
    return [name for name, (ours, other) in pairs.items() if ours["high"] < other["low"] or other["high"] < ours["low"]]


def add_labelled_performance(watched: dict[str, Any], windows: Sequence[Mapping[str, Any]], feedback: pd.DataFrame) -> None:
    """Add what labels show about the version of a watched window, and where the estimate without labels contradicts them."""
    labelled = labelled_performance(watched["model"], watched["labels"], windows, feedback, watched["confidence"])
    estimated = watched.get("estimated_performance") or {}
    if labelled is not None:
        labelled["disagrees"] = disagreements(labelled, estimated.get("metrics"))
    watched["labelled_performance"] = labelled
