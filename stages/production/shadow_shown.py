"""What the windows in which a version was the shadow of the deployed one show about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ballast.io.printable import counted
from stages.production.feedback import read_feedback
from stages.production.shadow_comparison import labelled_shadow
from stages.store.files import read_json
from stages.store.project import PROJECT


class Shown(NamedTuple):
    """What was shown about a version, in a sentence, and whether it decides worse than the deployed one."""

    words: str
    worse: bool


def shown_in_shadow(name: str, deployed: str) -> Shown:
    """What the windows show in which a version was the shadow of the deployed one.

    The last window with an estimate says whether it is worse: windows are judged with the same held-out messages, so more of
    them are hardly more evidence.
    """
    results = [read_json(path) for path in sorted(PROJECT.watch.glob("*.json"))]
    windows = [watched for watched in results if watched["model"] == deployed and compared(watched, name)]
    if not windows:
        return Shown(f"{name} was not in shadow beside {deployed} in any watched window", worse=False)
    messages, differ = (sum(numbers) for numbers in zip(*map(counts, windows), strict=True))
    words = f"in shadow, {name} decided {differ:,} of {counted(messages, 'message')} differently from {deployed}"
    words += f" in {counted(len(windows), 'window')}"
    estimated = [watched for watched in windows if watched["shadow"]["verdict"] is not None]
    last = (estimated or windows)[-1]
    words += f"; {last['window']}: {last['shadow']['summary']}"
    feedback = read_feedback()
    labelled = [labels for watched in windows if (labels := labelled_shadow(watched, feedback)) is not None]
    if total := sum(labels["differ"] for labels in labelled):
        ours, theirs = (sum(labels[key] for labels in labelled) for key in ("shadow_right", "deployed_right"))
        words += f"; of {counted(total, 'labelled message')} with different decisions, {name} is right on {ours:,}"
        words += f" and {deployed} on {theirs:,}"
    return Shown(words, worse=bool(estimated) and last["shadow"]["verdict"] == "worse")


def compared(watched: Mapping[str, Any], name: str) -> bool:
    """Whether a watched window was compared with a shadow."""
    shadow = watched.get("shadow") or {}
    return shadow.get("version") == name and shadow["differ"] is not None


def counts(watched: Mapping[str, Any]) -> tuple[int, int]:
    """The messages of a window, and those that its shadow decides differently."""
    return watched["shadow"]["n"], watched["shadow"]["differ"]["count"]
