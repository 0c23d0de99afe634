"""Precision, recall and F1 in production from the labels of the messages that the watch asked to label, over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ballast.monitoring.estimated_performance import Estimated
from ballast.monitoring.labelled_quality import LabelledSample, labelled_quality
from ballast.monitoring.recall_drops import difference
from stages.production.deployed import indices
from stages.store.files import locked, read_json
from stages.store.project import PROJECT

# The share of a window's messages to label that need a label for the window to count. Fewer labels may be of messages that
# someone noticed, such as complaints, and these are no random part.
LEAST_ANSWERED = 0.5

Window = Mapping[str, Any]


def other_windows(window: str) -> list[dict[str, Any]]:
    """What the watch wrote about all windows except one."""
    # Under the lock under which windows are deleted.
    with locked(PROJECT.watch / "index.html"):
        return [read_json(path) for path in sorted(PROJECT.watch.glob("*.json")) if path.stem != window]


def labelled_sample(
    model: str, labels: list[str], windows: Sequence[Window], feedback: pd.DataFrame
) -> tuple[LabelledSample, list[str]] | None:
    """The messages to label of the windows that a version scored and people labelled, and the names of these windows.

    Windows of other versions are left out, because those versions decide differently. So are windows with labels of less than
    half of the messages to label. Returns None without any window, or if a stratum has no label, because nothing then stands
    for its messages.
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
    sample = LabelledSample(
        classes=indices(pd.Series([given.get(row["id"]) for row in rows], dtype="str"), labels),
        predicted=indices(pd.Series([row["predicted"] for row in rows], dtype="str"), labels),
        posteriors=np.array([[row["posteriors"][label] for label in labels] for row in rows]),
        inclusion=np.array([row["inclusion_probability"] for row in rows]),
        sizes=np.array([row["size"] for row in rows]),
        strata=np.array([row["stratum"] for row in rows]),
    )
    return sample, sorted(labelled)


def labelled_performance(
    model: str, labels: list[str], windows: Sequence[Window], feedback: pd.DataFrame, confidence: float
) -> dict[str, Any] | None:
    """Precision, recall and F1 of each class by the labels of `labelled_sample`; None without such labels.

    A metric is None if no label shows it.
    """
    found = labelled_sample(model, labels, windows, feedback)
    if found is None:
        return None
    sample, names = found
    metrics = {}
    for label, quality in zip(labels, labelled_quality(sample, confidence=confidence), strict=True):
        for name, estimate in (("precision", quality.precision), ("recall", quality.recall), ("f1", quality.f1)):
            metrics[f"{label}.{name}"] = None if estimate is None else asdict(estimate)
    return {
        "n": int((sample.classes >= 0).sum()),
        "windows": names,
        "labelled": {label: int((sample.classes == at).sum()) for at, label in enumerate(labels)},
        "metrics": metrics,
    }


def metrics_of(window: Window) -> Mapping[str, Any] | None:
    """The metrics of a window as estimated without labels; None if they are withheld."""
    metrics: Mapping[str, Any] | None = (window.get("estimated_performance") or {}).get("metrics")
    return metrics


def estimate_over(windows: Sequence[Window], label: str, metric: str) -> Estimated | None:
    """Precision, recall or F1 of a class over all messages of some windows, as estimated without labels.

    Returns None if it is withheld for one of them. The errors of the windows are taken as equal, because the held-out messages
    are the same; so the interval is rather too wide.
    """
    parts, weights = [], []
    for window in windows:
        metrics = metrics_of(window)
        if metrics is None:
            return None
        assigned, of_class = metrics[f"{label}.share"]["value"], window["estimated_prior"][label]
        below = {"precision": assigned, "recall": of_class, "f1": assigned + of_class}[metric]
        parts.append([metrics[f"{label}.{metric}"][end] for end in ("value", "low", "high")])
        weights.append(window["n"] * below)
    if sum(weights) <= 0:
        return None
    value, low, high = np.average(parts, axis=0, weights=weights)
    return Estimated(value=float(value), low=float(low), high=float(high))


def disagreements(labelled: Window, watched: Window, windows: Sequence[Window]) -> list[str]:
    """The metrics whose estimates from labels and without labels differ by more than chance.

    The interval of the difference excludes 0. Precision and F1 depend on the class prior, so they are compared in the windows
    of the labels; recall does not, and it is compared with that of the watched window.
    """
    of_labels = [window for window in windows if window["window"] in labelled["windows"]]
    differing = []
    shown = {name: Estimated(**metric) for name, metric in labelled["metrics"].items() if metric is not None}
    for name, estimate in shown.items():
        label, _, kind = name.rpartition(".")
        other = estimate_over([watched] if kind == "recall" else of_labels, label, kind)
        if other is not None and ((between := difference(estimate, other)).low > 0 or between.high < 0):
            differing.append(name)
    return differing


def add_labelled_performance(watched: dict[str, Any], windows: Sequence[Window], feedback: pd.DataFrame) -> None:
    """Add what labels show about the version of a watched window, and where the estimate without labels contradicts them."""
    labelled = labelled_performance(watched["model"], watched["labels"], windows, feedback, watched["confidence"])
    if labelled is not None:
        labelled["disagrees"] = disagreements(labelled, watched, windows)
    watched["labelled_performance"] = labelled


def decided_by_labels(watched: Window) -> dict[str, Estimated]:
    """The estimates from labels that count for a window: those that the estimate without labels contradicts or lacks."""
    labelled = watched["labelled_performance"]
    if labelled is None:
        return {}
    without = metrics_of(watched) or {}
    return {
        name: Estimated(**metric)
        for name, metric in labelled["metrics"].items()
        if metric is not None and (name in labelled["disagrees"] or name not in without)
    }
