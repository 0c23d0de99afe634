"""Third question of the report: what would help most. Each lever has an expected gain, or the command that measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.io.printable import counted
from stages.pages.report.comparison_view import centred_axis
from stages.pages.words import metric_name, signed

# Digits of a gain on the page.
DIGITS = 3
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


def rank(lever: Mapping[str, Any]) -> tuple[int, float]:
    """Order of a lever: by falling gain; levers in use come after those that are not, and unmeasured levers last."""
    gain = lever["gain"]
    return (2, 0.0) if gain is None else (int(lever["in_use"]), -gain["value"])


def lever_rows(levers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the page shows of each lever; all gains are on one axis."""
    gains = [lever["gain"] for lever in levers if lever["gain"] is not None]
    axis = centred_axis(max(max(abs(gain["low"]), abs(gain["high"])) for gain in gains)) if gains else None
    rows = []
    for lever in sorted(levers, key=rank):
        gain = lever["gain"]
        rows.append(
            {
                "name": lever["lever"],
                "description": lever["description"],
                "gain": None if gain is None else signed(gain["value"]),
                "ends": "" if gain is None else f"{signed(gain['low'])} to {signed(gain['high'])}",
                "helps": helps(lever),
                "drawn": {} if gain is None or axis is None else axis.interval(gain),
                "cost": "in use" if lever["in_use"] else cost_text(lever["cost"]),
                "measured_by": lever["measured_by"] or "",
                "note": lever["note"] or "",
            }
        )
    return rows


def helps(lever: Mapping[str, Any]) -> bool:
    """Whether a lever that is not in use is shown to help, by more than the digits on the page."""
    return not lever["in_use"] and lever["gain"] is not None and round(lever["gain"]["low"], DIGITS) > 0


def help_most(levers: Sequence[Mapping[str, Any]] | None, command: str) -> dict[str, Any]:
    """The third question with its answer; `command` measures the levers if they are missing."""
    if not levers:
        return {"rows": [], "headline": "The levers are not measured.", "command": command, "metric": ""}
    best = max(filter(helps, levers), key=lambda lever: lever["gain"]["value"], default=None)
    return {
        "rows": lever_rows(levers),
        "headline": f"{best['lever']}." if best else "No measured lever is shown to help.",
        "command": "",
        "metric": metric_name(levers[0]["metric"]),
    }
