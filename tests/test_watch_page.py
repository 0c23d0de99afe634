"""The pages of the watch in a browser without network: they say what the windows say, and let no text of the data act."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from stages.report_page.view import percent
from stages.watch_page.view import (
    NEWEST,
    answer,
    counting,
    line,
    share_scale,
    timeline_page,
    with_share,
    would_count,
)
from tests.browser import CONTRAST, DESKTOP, HOSTILE, HOSTILE_TEXT, PHONE, Watched, watched

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)

HAM_SPAM = ("ham", "spam")
INTENTS = tuple(f"intent {letter}" for letter in "abcdefgh")
Window = dict[str, Any]


def shares_of(labels: Sequence[str], values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(float, values), strict=True))


def rates_of(labels: Sequence[str], right: float) -> dict[str, dict[str, float]]:
    """The rarest class is found less often; mistakes go to the others alike."""
    found = np.full(len(labels), right)
    found[-1] -= 0.05
    table = np.where(np.eye(len(labels)) > 0, found[:, None], (1 - found)[:, None] / (len(labels) - 1))
    return {label: shares_of(labels, row) for label, row in zip(labels, table, strict=True)}


def made(
    name: str,
    prior: Sequence[float],
    truth: Sequence[float],
    *,
    labels: Sequence[str] = HAM_SPAM,
    count: int = 1000,
    decision: str = "steady",
    rng: np.random.Generator | None = None,
    **changes: Any,
) -> Window:
    """A window as the watch writes it: an estimate near the truth, a naive count that the model's rates bias."""
    rng = np.random.default_rng(len(name)) if rng is None else rng
    prior, truth = np.array(prior), np.array(truth)
    rates = rates_of(labels, 0.97)
    deviation = np.sqrt(truth * (1 - truth) / count) * 1.15
    estimate = np.clip(truth + rng.normal(0, 1, len(truth)) * deviation, 0.001, None)
    estimate /= estimate.sum()
    shift = ", ".join(f"{label} {a:.3f} -> {b:.3f}" for label, a, b in zip(labels, prior, estimate, strict=True))
    reasons = {
        "steady": "the class prior is within chance of that of the deployed model",
        "reprior": f"the class prior moved ({shift})",
        "retrain": f"the class prior moved ({shift}) by more than 0.15",
        "investigate": "no shift of the class prior explains the scores: 7.4% of the messages have others than any mixture",
    }
    naive = [would_count(rates, shares_of(labels, estimate), label) for label in labels]
    odd = decision == "investigate"
    return {
        "window": name,
        "n": count,
        "model": "0001",
        "labels": list(labels),
        "reference_prior": shares_of(labels, prior),
        "estimated_prior": shares_of(labels, estimate),
        "low": shares_of(labels, np.clip(estimate - 2 * deviation, 0, 1)),
        "high": shares_of(labels, np.clip(estimate + 2 * deviation, 0, 1)),
        "assumption_holds": not odd,
        "decision": decision,
        "reasons": [reasons[decision]],
        "methods": {
            "classify_and_count": shares_of(labels, naive),
            "decided_and_counted": shares_of(labels, naive),
            "emq": shares_of(labels, estimate * 0.99 + 0.01 / len(labels)),
            "pacc": shares_of(labels, estimate),
        },
        "findings": [
            {"name": "scores", "p": 3e-9 if odd else 0.4, "effect": 0.074 if odd else 0.004, "rejects": odd},
            {"name": "length", "p": 1e-5 if odd else 1.0, "effect": 0.42 if odd else 0.01, "rejects": odd},
            {"name": "unseen_words", "p": 0.7, "effect": 0.02, "rejects": False},
        ],
        "quarantined": int(rng.integers(0, 5)),
        "new_labels": dict.fromkeys(labels, 0),
        "rates": rates,
        "feedback": None,
        "to_label": [{"id": f"{name}-{at}", "group": at} for at in range(6)] if odd else [],
        **changes,
    }


def empty(name: str, **changes: Any) -> Window:
    """A window without messages."""
    nothing = {"n": 0, "estimated_prior": None, "low": None, "high": None, "methods": None, "findings": []}
    reasons = ["the window has no messages"]
    window = made(name, (0.874, 0.126), (0.874, 0.126), decision="investigate")
    return {**window, **nothing, "reasons": reasons, "to_label": [], **changes}


def fed(count: int, labels: Sequence[str], values: Sequence[float], *, called: bool = True) -> dict[str, Any]:
    """Labelled feedback with some precision, recall and F1."""
    scores = {
        label: {"precision": value if called else None, "recall": value - 0.02, "f1": value - 0.01, "support": count // 5}
        for label, value in zip(labels, values, strict=True)
    }
    return {"n": count, "share": shares_of(labels, np.full(len(labels), 1 / len(labels))), "classes": scores}


def days(count: int) -> list[str]:
    first = datetime.date(2026, 3, 1)
    return [str(first + datetime.timedelta(days=at)) for at in range(count)]


def history(count: int, labels: Sequence[str] = HAM_SPAM) -> list[Window]:
    """Daily windows over which the rarest class grows, is corrected for, and once another kind of messages comes."""
    rng = np.random.default_rng(7)
    base = np.array([0.874, 0.126]) if len(labels) == 2 else np.arange(len(labels), 0, -1) / sum(range(len(labels) + 1))
    deployed, version, windows = base, 1, []
    for at, day in enumerate(days(count)):
        moved = base.copy()
        grown = 0.16 * max(0.0, np.sin(6.3 * at / max(count, 12)))
        moved[-1], moved[0] = moved[-1] + grown, moved[0] - grown
        decision = "reprior" if abs(moved[-1] - deployed[-1]) > 0.05 else "steady"
        if at % 23 == 9:
            decision = "investigate"
        if at % 61 == 11:
            decision = "retrain"
        window = made(
            day,
            deployed,
            moved,
            labels=labels,
            count=int(rng.integers(300, 1400)),
            decision=decision,
            rng=rng,
            model=f"{version:04}",
        )
        if at % 5 == 3:
            values = np.clip(0.93 + rng.normal(0, 0.02, len(labels)), 0, 1)
            window["feedback"] = fed(int(rng.integers(40, 200)), labels, values.tolist(), called=at % 10 == 3)
        if decision == "retrain":
            window["reasons"] += ["a retraining needs 20 new labels of each class, there are 3 of ham, 25 of spam"]
        if decision in ("reprior", "retrain"):
            deployed, version = moved, version + 1
        windows.append(window)
    return windows


def written(folder: Path, windows: Sequence[Window], texts: Mapping[str, str] | None = None) -> Path:
    path = folder / "index.html"
    path.write_text(timeline_page(windows, texts or {}, 0.95), encoding="utf-8")
    return path
