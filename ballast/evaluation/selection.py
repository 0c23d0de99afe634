"""Metrics and differences of the entries of a leaderboard, as the pages show them. `one_standard_error` selects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def metric_of(technique: Mapping[str, Any], metric: str) -> Mapping[str, float]:
    """Value and interval of a metric on test: at the operating point if it is one of decisions, else corrected.

    Examples
    --------
    >>> metric_of({"corrected": {"f1": {"value": 0.9}}, "operating_point": {"f1": {"value": 0.95}}}, "f1")
    {'value': 0.95}
    """
    estimate: Mapping[str, float] = {**technique["corrected"], **technique["operating_point"]}[metric]
    return estimate


def difference(technique: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """Difference of a metric from the reference, or None for the reference itself and for metrics that are not compared."""
    comparison = technique["comparison"]
    if comparison is None:
        return None
    return {**comparison["corrected"]["metrics"], **comparison["operating_point"]["metrics"]}.get(metric)
