"""Precision, recall and F1 in production, from the labels of the messages that the watch asked to label."""

from __future__ import annotations

from typing import Any

from stages.pages.watch.windows import Window
from stages.pages.words import join_words, number

TITLES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


def in_words(metric: dict[str, float] | None) -> dict[str, str]:
    """A value and its interval; dashes for a metric that no label shows."""
    if metric is None:
        return {"value": "–", "interval": ""}
    return {"value": number(metric["value"]), "interval": f"{number(metric['low'])} to {number(metric['high'])}"}


def labelled_quality(window: Window) -> dict[str, Any] | None:
    """What labels show about the version that scored a window; None without labels."""
    labelled = window.get("labelled_performance")
    if not labelled:
        return None
    estimated = (window.get("estimated_performance") or {}).get("metrics") or {}
    rows = [
        {
            "label": label,
            "labelled": labelled["labelled"][label],
            "metrics": [
                {
                    **in_words(labelled["metrics"].get(f"{label}.{name}")),
                    "estimated": in_words(estimated.get(f"{label}.{name}")),
                }
                for name in TITLES
            ],
        }
        for label in window["labels"]
    ]
    wrong = [f"{TITLES[metric]} of {label}" for label, _, metric in (name.rpartition(".") for name in labelled["disagrees"])]
    return {
        "n": labelled["n"],
        "windows": len(labelled["windows"]),
        "model": window["model"],
        "titles": list(TITLES.values()),
        "rows": rows,
        "estimated": bool(estimated),
        "disagrees": join_words(wrong) if wrong else None,
    }
