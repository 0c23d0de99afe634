"""What the search of parameters found, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_words(value: Any) -> str:
    """A parameter's value; that of each class with its name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{label} {each:g}" for label, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def searched(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each entry that was searched: its parameters, their value on validation and the baseline's."""
    return [
        {
            "name": name,
            "parameters": [f"{key}: {in_words(value)}" for key, value in each["best"].items()],
            "metric": each["metric"],
            "value": each["value"],
            "baseline": each["baseline"],
            "trials": len(each["trials"]),
        }
        for name, each in found.items()
    ]
