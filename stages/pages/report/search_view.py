"""Results of the hyper-parameter search, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.pages.words import metric_name


def parameter_text(value: Any) -> str:
    """A hyper-parameter's value; a value per class with the names of the classes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{label} {weight:g}" for label, weight in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def transfer_sentence(name: str, transfer: Mapping[str, Any] | None) -> str:
    """Whether the hyper-parameters of an entry help the trained models, in words."""
    if transfer is None or transfer["untuned"] is None:
        return f"not measured: add an entry with the technique of {name} and the values from before the search"
    comparison = transfer["comparison"]
    if comparison is None:
        return f"not measured: {metric_name(transfer['metric'])} is not a metric of decisions"
    interval = f"{comparison['difference']:+.3f} ({comparison['low']:+.3f} to {comparison['high']:+.3f})"
    return f"{comparison['verdict']}: {interval} against {transfer['untuned']}, out of fold"


def search_rows(search: Mapping[str, Any], transfers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each technique that was searched: the best hyper-parameters, their validation score and the baseline's.

    transfers : whether they help the trained models, by entry, as the leaderboard has it.
    """
    return [
        {
            "name": name,
            "parameters": [f"{key}: {parameter_text(value)}" for key, value in entry["best"].items()],
            "metric": entry["metric"],
            "value": entry["value"],
            "baseline": entry["baseline"],
            "n_trials": len(entry["trials"]),
            "transfer": transfer_sentence(name, transfers.get(name)),
        }
        for name, entry in search.items()
    ]
