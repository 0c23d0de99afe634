"""Choosing a technique: the best by one metric among those that satisfy the constraints, ties to the cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.errors import UserError
from ballast.metrics import LOSSES, metric_names


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better."""
    return metric not in LOSSES


def satisfies(value: float, metric: str, limit: float) -> bool:
    """Whether a value keeps a constraint: at least the limit, for losses at most."""
    return value >= limit if higher_is_better(metric) else value <= limit


def select(
    techniques: Mapping[str, Mapping[str, Any]],
    labels: list[str],
    *,
    metric: str,
    tolerance: float,
    constraints: Mapping[str, float],
) -> str:
    """Name of the chosen technique.

    Parameters
    ----------
    techniques : name -> {parameters, corrected: {metric: {value}}}, as on the leaderboard.
    metric : to rank by, of the corrected numbers.
    tolerance : a technique no further than this from the best is tied with it; of the tied, the one with the fewest
        weights is chosen, then the better, then the first by name.
    constraints : metric -> limit.

    Raises
    ------
    UserError : a metric is unknown, or no technique satisfies the constraints.
    """
    known = metric_names(labels)
    for name in (metric, *constraints):
        if name not in known:
            raise UserError(f"select: unknown metric {name!r}; known: {', '.join(known)}")
    values = {
        name: each["corrected"][metric]["value"] * (1 if higher_is_better(metric) else -1) for name, each in techniques.items()
    }
    allowed = [
        name
        for name, each in techniques.items()
        if all(satisfies(each["corrected"][which]["value"], which, limit) for which, limit in constraints.items())
    ]
    if not allowed:
        wanted = ", ".join(
            f"{which} {'>=' if higher_is_better(which) else '<='} {limit:g}" for which, limit in constraints.items()
        )
        raise UserError(f"select: no technique satisfies {wanted} (select.constraints)")
    best = max(values[name] for name in allowed)
    tied = [name for name in allowed if best - values[name] <= tolerance]
    return min(tied, key=lambda name: (techniques[name]["parameters"], -values[name], name))
