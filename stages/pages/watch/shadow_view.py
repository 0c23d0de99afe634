"""The shadow beside the deployed version: how many decisions differ, and the estimated difference of their quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.pages.watch.windows import Window, by_prior, link
from stages.pages.words import capitalize_first, metric_name, percent, signed

# Rows of the table, newest first, and the most frequent kinds of differing decisions in a row.
NEWEST, KINDS = 30, 3
VERDICTS = {"better": "better", "worse": "worse", "not shown": "no difference shown"}


def shadow_panel(windows: Sequence[Window]) -> dict[str, Any] | None:
    """The newest windows with a shadow; None without any."""
    compared = [window for window in windows if window.get("shadow")][: -NEWEST - 1 : -1]
    if not compared:
        return None
    metrics = shown_metrics(compared)
    return {
        "summary": compared[0]["shadow"]["summary"],
        "titles": [capitalize_first(metric_name(name)) for name in metrics],
        "rows": [row(window, metrics) for window in compared],
        "labelled": any(window["shadow"].get("labelled") for window in compared),
    }


def shown_metrics(windows: Sequence[Window]) -> list[str]:
    """The metrics in the table: precision and recall of the rare one of two classes, and what decides: cost or macro F1."""
    labels = by_prior(windows[0]["labels"], windows[0]["reference_prior"])
    rare = [f"{labels[0]}.{metric}" for metric in ("precision", "recall")] if len(labels) == 2 else []
    costs = any("cost" in (window["shadow"]["metrics"] or {}) for window in windows)
    return [*rare, "cost" if costs else "macro_f1"]


def row(window: Window, metrics: Sequence[str]) -> dict[str, Any]:
    """A window's row in the table."""
    shadow = window["shadow"]
    versions = f"{shadow['version']} beside\N{NO-BREAK SPACE}{window['model']}"
    content = {"window": window["window"], "link": link(window), "versions": versions}
    if shadow["differ"] is None:
        return {**content, "nothing": shadow["problem"] or shadow["withheld"]}
    estimates = shadow["metrics"] or {}
    return {
        **content,
        "nothing": None,
        "differ": f"{shadow['differ']['count']:,} of {shadow['n']:,}",
        "share": " to ".join(percent(shadow["differ"][end]) for end in ("low", "high")),
        "kinds": kinds(shadow["decisions"]),
        "withheld": shadow["withheld"],
        "metrics": [in_words(estimates.get(name)) for name in metrics],
        "verdict": VERDICTS.get(shadow["verdict"], ""),
        "labelled": shadow.get("labelled"),
    }


def kinds(decisions: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The most frequent pairs of different decisions, deployed to shadow.

    >>> kinds({"ham": {"ham": 90, "spam": 7}, "spam": {"ham": 2, "spam": 5}})
    ['7 ham → spam', '2 spam → ham']
    """
    pairs = [
        (count, label, other)
        for label, counts in decisions.items()
        for other, count in counts.items()
        if other != label and count
    ]
    return [f"{count:,} {label} → {other}" for count, label, other in sorted(pairs, key=lambda pair: -pair[0])[:KINDS]]


def in_words(difference: Mapping[str, float] | None) -> dict[str, str]:
    """A difference and its interval; a dash without an estimate."""
    if difference is None:
        return {"value": "–", "interval": ""}
    return {"value": signed(difference["value"]), "interval": " to ".join(signed(difference[end]) for end in ("low", "high"))}
