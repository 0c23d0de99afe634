"""Results of the hyper-parameter search, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parameter_text(value: Any) -> str:
    """A hyper-parameter's value; a value per class with the names of the classes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{label} {weight:g}" for label, weight in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def search_rows(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each technique that was searched: the best hyper-parameters, their validation score and the baseline's."""
    return [
        {
            "name": name,
            "parameters": [f"{key}: {parameter_text(value)}" for key, value in entry["best"].items()],
            "metric": entry["metric"],
            "value": entry["value"],
            "baseline": entry["baseline"],
            "n_trials": len(entry["trials"]),
        }
        for name, entry in search.items()
    ]
