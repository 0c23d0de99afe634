"""Choosing a technique: the best by one metric among those that satisfy the constraints, ties to the cheaper.

A technique is {parameters, safe, corrected: {metric: {value, low, high}}, operating_point: {...}}, as on the leaderboard; where
safe is not known it is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.evaluation.metrics import higher_is_better, metric_names
from ballast.exceptions import UserError


def metric_of(technique: Mapping[str, Any], metric: str, at: str) -> Mapping[str, float]:
    """A metric's value and interval `at` the operating point, where it is one of decisions; else the corrected one."""
    found: Mapping[str, float] = {**technique["corrected"], **technique[at]}[metric]
    return found


def difference(technique: Mapping[str, Any], metric: str, at: str) -> Mapping[str, Any] | None:
    """Difference of a metric from the reference, or None for the reference itself and for metrics that are not compared."""
    found = technique["comparison"]
    return None if found is None else {**found["corrected"]["metrics"], **found[at]["metrics"]}.get(metric)


def satisfies(value: float, metric: str, limit: float) -> bool:
    """Whether a value keeps a constraint: at least the limit, for losses at most."""
    return value >= limit if higher_is_better(metric) else value <= limit


def as_inequality(metric: str, limit: float) -> str:
    """A constraint as an inequality."""
    return f"{metric} {'>=' if higher_is_better(metric) else '<='} {limit:g}"


def eligible(
    techniques: Mapping[str, Mapping[str, Any]], *, at: str, constraints: Mapping[str, float], safe_only: bool
) -> list[str]:
    """Names of the techniques that satisfy the constraints by their values; the intervals are for the reader."""
    return [
        name
        for name, each in techniques.items()
        if (not safe_only or each["safe"])
        and all(satisfies(metric_of(each, metric, at)["value"], metric, limit) for metric, limit in constraints.items())
    ]


def best_of(techniques: Mapping[str, Mapping[str, Any]], metric: str, at: str) -> tuple[str, float]:
    """The technique with the best value of a metric, and that value."""
    values = {name: metric_of(each, metric, at)["value"] for name, each in techniques.items()}
    name = (max if higher_is_better(metric) else min)(values, key=lambda each: values[each])
    return name, values[name]


def no_candidate_message(
    techniques: Mapping[str, Mapping[str, Any]], at: str, constraints: Mapping[str, float], safe_only: bool
) -> str:
    """Why no technique is left, with the best that there is for each constraint."""
    wanted = []
    for metric, limit in constraints.items():
        name, value = best_of(techniques, metric, at)
        wanted.append(f"{as_inequality(metric, limit)} (the best is {value:.4g}, {name})")
    if safe_only:
        safe = sum(bool(each["safe"]) for each in techniques.values())
        wanted.append(f"safe_only ({safe} of {len(techniques)} techniques are safe)")
    where = " at the operating point" if at == "operating_point" else ""
    keys = " or ".join(["select.constraints"] * bool(constraints) + ["select.safe_only"] * safe_only)
    return f"select: no technique satisfies {', '.join(wanted)}{where}; loosen {keys}"


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
    """Name of the chosen technique.

    Parameters
    ----------
    techniques : by name.
    metric : to rank by.
    tolerance : a technique no further than this from the best is tied with it; of the tied, the one with the fewest
        weights is chosen, then the better, then the first by name.
    constraints : metric -> limit.
    at : where decisions are judged, `operating_point` or `corrected`: the most probable class.
    safe_only : leave out techniques whose raw posteriors are not known to be right for production.

    Raises
    ------
    UserError : a metric is unknown, or no technique satisfies the constraints.
    """
    known = metric_names(labels)
    for name in (metric, *constraints):
        if name not in known:
            raise UserError(f"select: unknown metric {name!r}; known: {', '.join(known)}")
    names = eligible(techniques, at=at, constraints=constraints, safe_only=safe_only)
    if not names:
        raise UserError(no_candidate_message(techniques, at, constraints, safe_only))
    sign = 1 if higher_is_better(metric) else -1
    values = {name: sign * metric_of(techniques[name], metric, at)["value"] for name in names}
    best = max(values.values())
    tied = [name for name in names if best - values[name] <= tolerance]
    return min(tied, key=lambda name: (techniques[name]["parameters"], -values[name], name))
