"""Third question of the report: what would help most. Each lever has an expected gain, or the command that measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.io.printable import counted
from stages.pages.report.comparison_view import difference_axis
from stages.pages.words import metric_name, signed

# Units of a cost, in the order in which they are shown.
UNITS = ("trainings", "labels", "minutes")


def cost_text(cost: Any) -> str:
    """The cost of a lever in words.

    Examples
    --------
    >>> cost_text({"labels": 4518, "minutes": 3.2}), cost_text({"trainings": 0}), cost_text(None)
    ('4,518 labels, 3 minutes', 'no cost', '')
    """
    if not isinstance(cost, Mapping):
        return "" if cost is None else str(cost)
    ordered = [*(unit for unit in UNITS if unit in cost), *(unit for unit in cost if unit not in UNITS)]
    parts = [
        counted(round(value), unit.rstrip("s")) if isinstance(value := cost[unit], int | float) else str(value)
        for unit in ordered
        if value_of(cost[unit])
    ]
    return ", ".join(parts) or "no cost"


def value_of(amount: Any) -> bool:
    """Whether an amount of a cost is worth mentioning."""
    return bool(round(amount)) if isinstance(amount, int | float) else amount is not None


def lever_rows(levers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The levers by falling gain, on one axis; those without a measured gain come last."""
    measured = [lever for lever in levers if lever["gain"] is not None]
    axis = difference_axis([lever["gain"] for lever in measured]) if measured else None
    ranked = sorted(measured, key=lambda lever: -lever["gain"]["value"])
    rows = []
    for lever in [*ranked, *(lever for lever in levers if lever["gain"] is None)]:
        gain = lever["gain"]
        drawn = {} if gain is None or axis is None else axis.interval(gain)
        rows.append(
            {
                "name": lever["lever"],
                "description": lever["description"],
                "gain": None if gain is None else signed(gain["value"]),
                "ends": "" if gain is None else f"{signed(gain['low'])} to {signed(gain['high'])}",
                "helps": gain is not None and gain["low"] > 0,
                "drawn": drawn,
                "cost": cost_text(lever["cost"]),
                "measured_by": lever["measured_by"] or "",
                "note": lever["note"] or "",
            }
        )
    return rows


def help_most(levers: Sequence[Mapping[str, Any]] | None, command: str) -> dict[str, Any]:
    """The third question with its answer; `command` measures the levers if they are missing."""
    if not levers:
        return {"rows": [], "headline": "The levers are not measured.", "command": command, "metric": "", "zero": 50}
    rows = lever_rows(levers)
    gains = [lever for lever in levers if lever["gain"] is not None and lever["gain"]["low"] > 0]
    best = max(gains, key=lambda lever: lever["gain"]["value"], default=None)
    headline = f"{best['lever']}." if best else "No measured lever is shown to help."
    metrics = {lever["metric"] for lever in levers if lever["gain"] is not None}
    return {
        "rows": rows,
        "headline": headline,
        "command": "",
        "metric": metric_name(metrics.pop()) if len(metrics) == 1 else "",
        "zero": 50,
    }
