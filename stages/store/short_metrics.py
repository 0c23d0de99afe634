"""The few numbers that DVC's commands print in a terminal: a row per technique, and the selected technique in experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIGITS = 4


def rarest(prior: Mapping[str, float]) -> str:
    """The rarest class of a prior by label.

    >>> rarest({"ham": 0.87, "spam": 0.13})
    'spam'
    """
    return min(prior, key=prior.__getitem__)


def technique_metrics(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of an evaluation at the operating point, out of fold, and the F1 on test. F1 is that of the rarest class.

    The log loss is that of the corrected probabilities.
    """
    decided, f1 = evaluation["out_of_fold"]["operating_point"], f"{rarest(evaluation['production_prior'])}.f1"
    return {
        "f1": value(decided[f1]),
        "macro_f1": value(decided["macro_f1"]),
        "log_loss": value(evaluation["out_of_fold"]["corrected"]["log_loss"]),
        "test_f1": value(evaluation["pooled"]["operating_point"][f1]),
    }


def selected_metrics(name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The selected technique and its F1, under keys that no technique has: DVC then shows them without the file's name."""
    return {"technique": name, "selected_f1": technique_metrics(evaluation)["f1"]}


def value(interval: Mapping[str, float]) -> float:
    """The value of an interval, rounded."""
    return round(interval["value"], DIGITS)
