"""The windows to investigate: what the prior shift does not explain, and which messages to label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.monitoring.labelling_queue import UNUSUAL
from stages.pages.report.errors_view import SHOWN_CHARACTERS
from stages.pages.watch.windows import Window, link
from stages.pages.words import join_words, shortened
from stages.store.project import PROJECT

# Number of windows with findings on the page, newest first.
N_EXPLAINED = 8


def finding_row(finding: Mapping[str, Any]) -> dict[str, str]:
    """A finding that no shift of the prior explains: the statistic, its effect in words and its p-value."""
    effect = (
        f"{finding['effect']:.1%} of the messages have scores that no mixture of the classes produces"
        if finding["name"] == "scores"
        else f"the mean rank differs by {finding['effect']:+.2f} standard deviations from any mixture of the classes"
    )
    return {"name": finding["name"].replace("_", " "), "effect": effect, "p": f"{finding['p']:.2g}"}


def unusual_ids(window: Window) -> list[str]:
    """The ids of the most unusual messages that a window asks to label.

    >>> unusual_ids({"to_label": [{"id": "1", "stratum": "unusual"}, {"id": "2", "stratum": "rare-1"}]})
    ['1']
    """
    return [message["id"] for message in window["to_label"] if message.get("stratum", UNUSUAL) == UNUSUAL]


def unexplained(windows: Sequence[Window], texts: Mapping[str, str]) -> dict[str, Any] | None:
    """The windows to investigate, newest first, with their findings, and the messages of the newest to label; or None."""
    to_investigate = [window for window in reversed(windows) if window["decision"] == "investigate"]
    if not to_investigate:
        return None
    shown = [
        {
            "window": window["window"],
            "link": link(window),
            "reasons": window["reasons"],
            "findings": [finding_row(finding) for finding in window["findings"] or [] if finding["rejects"]],
        }
        for window in to_investigate[:N_EXPLAINED]
    ]
    chosen = next((window for window in to_investigate if unusual_ids(window)), None)
    identifiers = unusual_ids(chosen) if chosen else []
    messages = [
        {"id": identifier, "text": shortened(texts[identifier], SHOWN_CHARACTERS) if identifier in texts else None}
        for identifier in identifiers
    ]
    return {
        "windows": shown,
        "n_older": len(to_investigate) - len(shown),
        "of": chosen["window"] if chosen else None,
        "messages": messages,
        "any_text": any(message["text"] is not None for message in messages),
        "queue": f"{PROJECT.to_label / chosen['window']}.csv" if chosen else None,
        "folder": str(PROJECT.labels),
        "labels": join_words([f"“{label}”" for label in chosen["labels"]]) if chosen else "",
    }
