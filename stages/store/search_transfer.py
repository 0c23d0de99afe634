"""Whether parameters that the search found on frozen embeddings also help the trained models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.comparison import compare
from ballast.evaluation.metrics import LOSSES

Entries = Mapping[str, Mapping[str, Any] | None]


def untuned_entry(name: str, entries: Entries, searched: Mapping[str, Any]) -> str | None:
    """The first entry with the technique of the entry `name` that is not searched; None if there is none.

    Examples
    --------
    >>> entries = {"focal": {}, "focal_untuned": {"technique": "focal", "gamma": 2.0}, "baseline": {}}
    >>> untuned_entry("focal", entries, {"focal": {}})
    'focal_untuned'
    """
    techniques = {other: (parameters or {}).get("technique", other) for other, parameters in entries.items()}
    return next((other for other in entries if other not in searched and techniques[other] == techniques[name]), None)


def search_transfer(
    results: Mapping[str, Any], entries: Entries, held_out: Mapping[str, Draws], confidence: float, margin: float
) -> dict[str, Any]:
    """For each searched entry, its out-of-fold difference from the untuned entry, in the metric of the search.

    results : of the search, by entry.
    held_out : out-of-fold draws at the operating point, with the variation between trainings.

    `comparison` is None if there is no untuned entry, or if the metric is not one of decisions. The confidence is divided among
    the searched entries (Bonferroni).
    """
    found: dict[str, Any] = {}
    for name, result in results.items():
        other, metric = untuned_entry(name, entries, results), result["metric"]
        comparison = None
        if other is not None and metric in held_out[name].values:
            pair = {other: held_out[other], name: held_out[name]}
            joint = 1 - (1 - confidence) / len(results)
            comparison = compare(pair, other, [metric], joint, LOSSES, margin)[name]["metrics"][metric]  # type: ignore[index]
        found[name] = {"untuned": other, "metric": metric, "comparison": comparison}
    return found
