"""Select a technique: the best by a metric among those that satisfy the constraints; ties go to the smaller model.

A technique is an entry of the leaderboard: {parameters, safe, corrected: {metric: {value, low, high}}, operating_point: {...}}.
`parameters` is its number of weights; `safe` is safe, unsafe or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.evaluation.metrics import higher_is_better, metric_names
from ballast.exceptions import ArgumentError, suggestion


def metric_of(technique: Mapping[str, Any], metric: str, at: str) -> Mapping[str, float]:
    """Value and interval of a metric: `at` the operating point if the metric is one of decisions, otherwise corrected."""
    estimate: Mapping[str, float] = {**technique["corrected"], **technique[at]}[metric]
    return estimate


def difference(technique: Mapping[str, Any], metric: str, at: str) -> Mapping[str, Any] | None:
    """Difference of a metric from the reference, or None for the reference itself and for metrics that are not compared."""
    comparison = technique["comparison"]
    return None if comparison is None else {**comparison["corrected"]["metrics"], **comparison[at]["metrics"]}.get(metric)


def satisfies(value: float, metric: str, limit: float) -> bool:
    """Whether a value satisfies a constraint: at least the limit, or at most for losses."""
    return value >= limit if higher_is_better(metric) else value <= limit


def as_inequality(metric: str, limit: float) -> str:
    """A constraint as an inequality."""
    return f"{metric} {'>=' if higher_is_better(metric) else '<='} {limit:g}"


def eligible(
    techniques: Mapping[str, Mapping[str, Any]], *, at: str, constraints: Mapping[str, float], safe_only: bool
) -> list[str]:
    """Names of the techniques with values that satisfy the constraints. Intervals are not considered."""
    return [
        name
        for name, technique in techniques.items()
        if (not safe_only or technique["safe"] == "safe")
        and all(satisfies(metric_of(technique, metric, at)["value"], metric, limit) for metric, limit in constraints.items())
    ]


def best_of(techniques: Mapping[str, Mapping[str, Any]], metric: str, at: str) -> tuple[str, float]:
    """The technique with the best value of a metric, and that value."""
    values = {name: metric_of(technique, metric, at)["value"] for name, technique in techniques.items()}
    name = (max if higher_is_better(metric) else min)(values, key=lambda name: values[name])
    return name, values[name]


def no_candidate_message(
    techniques: Mapping[str, Mapping[str, Any]], at: str, constraints: Mapping[str, float], safe_only: bool
) -> str:
    """Explain that no technique satisfies the constraints, with the best value for each."""
    wanted = []
    for metric, limit in constraints.items():
        name, value = best_of(techniques, metric, at)
        wanted.append(f"{as_inequality(metric, limit)} (the best is {value:.4g}, {name})")
    if safe_only:
        safe = sum(technique["safe"] == "safe" for technique in techniques.values())
        wanted.append(f"safe_only ({safe} of {len(techniques)} techniques are safe)")
    where = " at the operating point" if at == "operating_point" else ""
    arguments = ["constraints"] * bool(constraints) + ["safe_only"] * safe_only
    return f"{arguments[0]}: no technique satisfies {', '.join(wanted)}{where}; loosen {' or '.join(arguments)}"


def select(
    techniques: Mapping[str, Mapping[str, Any]],
    labels: list[str],
    *,
    metric: str,
    tolerance: float,
    constraints: Mapping[str, float],
    at: str = "corrected",
    safe_only: bool = False,
) -> str:
    """Name of the selected technique.

    Parameters
    ----------
    techniques : by name.
    metric : to rank by.
    tolerance : techniques within this distance of the best are tied with it. Of these, the one with the fewest weights is
        selected, then the better one, then the first by name.
    constraints : metric -> limit.
    at : how messages are decided, `operating_point` or `corrected` (the most probable class).
    safe_only : leave out techniques with raw posteriors that are unsafe, or not shown to be safe, for the production prior.

    Raises
    ------
    ArgumentError : a metric is unknown, or no technique satisfies the constraints.
    """
    valid = metric_names(labels)
    for argument, names in (("metric", [metric]), ("constraints", constraints)):
        for name in names:
            if name not in valid:
                raise ArgumentError(f"{argument}: unknown metric {name!r}: {suggestion(name, valid)}")
    candidates = eligible(techniques, at=at, constraints=constraints, safe_only=safe_only)
    if not candidates:
        raise ArgumentError(no_candidate_message(techniques, at, constraints, safe_only))
    sign = 1 if higher_is_better(metric) else -1
    values = {name: sign * metric_of(techniques[name], metric, at)["value"] for name in candidates}
    best = max(values.values())
    tied = [name for name in candidates if best - values[name] <= tolerance]
    return min(tied, key=lambda name: (techniques[name]["parameters"], -values[name], name))
