"""Values of one window of the watch, as `stages.production.watch` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from stages.store.project import PROJECT

Window = Mapping[str, Any]


def share(window: Window, key: str, label: str) -> float | None:
    """A label's value in one of a window's tables; None if the window has none."""
    value: float | None = (window[key] or {}).get(label)
    return value


def share_by(window: Window, method: str, label: str) -> float | None:
    """A label's share as estimated by another method; None if the window has no messages."""
    value: float | None = ((window["methods"] or {}).get(method) or {}).get(label)
    return value


def feedback_of(window: Window) -> Mapping[str, Any] | None:
    """A window's labelled feedback, if it has any."""
    feedback = window["feedback"]
    return feedback if feedback and feedback["n"] else None


def estimate_of(window: Window, metric: str) -> Mapping[str, float] | None:
    """The estimate of a metric without labels: value, low and high; None if it is withheld. Older windows have none."""
    metrics = (window.get("estimated_performance") or {}).get("metrics") or {}
    estimate: Mapping[str, float] | None = metrics.get(metric)
    return estimate


def withheld_because(window: Window) -> str:
    """Why a window has no estimated performance; empty if it has."""
    performance = window.get("estimated_performance")
    return str(performance["withheld"] or "") if performance else "an earlier release watched this window"


def true_share(window: Window, label: str) -> float | None:
    """A label's share if every message has a label. A few labels are not a random sample of the window."""
    feedback = feedback_of(window)
    return feedback["share"].get(label) if feedback and feedback["n"] >= window["n"] else None


def link(window: Window) -> str:
    """Address of a window's own page, relative to the time line."""
    return f"{quote(window['window'], safe='')}.html"


def label_link(window: Window) -> str | None:
    """Address of the page to label a window's messages on, relative to the time line; None if it asks for no labels."""
    asks = any("inclusion_probability" in message for message in window["to_label"])
    return f"../{PROJECT.to_label.name}/{link(window)}" if asks else None


def by_prior(labels: Sequence[str], prior: Mapping[str, float]) -> list[str]:
    """The labels in increasing order of their prior."""
    return sorted(labels, key=lambda label: prior[label])
