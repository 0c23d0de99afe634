"""Cost curves and review curves in the report, of the selected technique, the reference and those tied with the former."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

import numpy as np

from stages.pages.drawing import CURVE_UNITS, Axis, nice_step, points
from stages.pages.report.results import Results

Curve = Mapping[str, Sequence[float]]


def band(xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """The area between two lines over the unit square as an SVG path, with y upwards.

    Examples
    --------
    >>> band([0, 1], [0.25, 0.25], [0.5, 0.5])
    'M0 3000L4000 3000L4000 2000L0 2000Z'
    """
    there = [(x, y) for x, y in zip(xs, low, strict=True)]
    back = [(x, y) for x, y in zip(xs, high, strict=True)][::-1]
    return "M" + "L".join(f"{round(CURVE_UNITS * x)} {round(CURVE_UNITS * (1 - y))}" for x, y in [*there, *back]) + "Z"


def coloured(results: Results) -> list[str]:
    """The techniques that the page colours, the selected one last so that it covers the others."""
    drawn = [name for name in results.names if results.role(name) != "other"]
    return sorted(drawn, key=lambda name: results.drawing_rank(results.role(name)))


def relative_cost(curve: Curve) -> dict[str, np.ndarray]:
    """Expected costs as shares of the cost without a model: the better of always and never predicting the class.

    Examples
    --------
    >>> curve = {"value": [0.1], "low": [0.05], "high": [0.2], "trivial": [0.4]}
    >>> {key: share.tolist() for key, share in relative_cost(curve).items()}
    {'value': [0.25], 'low': [0.125], 'high': [0.5]}
    """
    return {key: np.array(curve[key]) / np.array(curve["trivial"]) for key in ("value", "low", "high")}


def cost_chart(results: Results) -> dict[str, Any]:
    """Expected cost against the ratio of the costs of a miss and a false alarm."""
    curves = {name: results.evaluations[name]["curves"]["cost"] for name in coloured(results)}
    shares = {name: relative_cost(curve) for name, curve in curves.items()}
    most = min(1.0, max(float(share["value"].max()) for share in shares.values()))
    step = nice_step(most, 4)
    axis = Axis(low=0, high=round(step * max(1, ceil(most / step - 1e-9)), 10))
    ratios = np.log10(np.array(next(iter(curves.values()))["cost_ratio"]))
    left, right = float(ratios.min()), float(ratios.max())
    xs = ((ratios - left) / (right - left)).tolist()
    lines = []
    for name, share in shares.items():
        ups = {key: np.clip(values / axis.high, 0, 1).tolist() for key, values in share.items()}
        line = {"at": results.names.index(name), "name": name, "role": results.role(name), "path": points(xs, ups["value"])}
        lines.append(line | {"band": band(xs, ups["low"], ups["high"]) if line["role"] == "selected" else ""})
    powers = range(ceil(left - 1e-9), floor(right + 1e-9) + 1)
    ticks = [round(float(tick), 10) for tick in np.arange(0, axis.high + step / 2, step)]
    return {
        "label": next(iter(curves.values()))["label"],
        "lines": lines,
        "ticks": [{"at": axis.at(tick), "value": f"{100 * tick:g}%"} for tick in ticks],
        "across": [{"at": round(100 * (power - left) / (right - left), 2), "value": f"{10.0**power:g}"} for power in powers],
    }


def review_chart(results: Results) -> dict[str, Any]:
    """Precision and recall of what is decided automatically against the share that people decide."""
    names = [name for name in coloured(results) if results.role(name) in ("selected", "reference")]
    curves = {name: results.evaluations[name]["curves"]["review"] for name in names}
    lowest = min(min(curve[metric]) for curve in curves.values() for metric in ("precision", "recall"))
    low = min(0.95, max(0.0, floor(20 * lowest - 0.5) / 20))
    most = max(max(curve["share"]) for curve in curves.values())
    lines = []
    for name, curve in curves.items():
        xs = [share / most for share in curve["share"]]
        for metric in ("precision", "recall"):
            ups = {
                end: np.clip((np.array(curve[metric + end]) - low) / (1 - low), 0, 1).tolist() for end in ("", "_low", "_high")
            }
            line = {"at": results.names.index(name), "name": name, "role": results.role(name), "metric": metric}
            drawn = band(xs, ups["_low"], ups["_high"]) if line["role"] == "selected" else ""
            lines.append(line | {"path": points(xs, ups[""]), "band": drawn})
    axis, steps = Axis(low=low, high=1), nice_step(1 - low, 4)
    ticks = [round(float(tick), 6) for tick in np.arange(low, 1 + steps / 2, steps) if tick <= 1 + 1e-9]
    step = nice_step(most, 4)
    across = [round(float(tick), 6) for tick in np.arange(0, most + step / 2, step) if tick <= most + 1e-9]
    review = results.point["review"]
    share = review["share"]["value"] if review and review["share"] else None
    return {
        "label": next(iter(curves.values()))["label"],
        "lines": lines,
        "ticks": [{"at": axis.at(tick), "value": f"{tick:g}"} for tick in ticks],
        "across": [{"at": round(100 * tick / most, 2), "value": f"{100 * tick:g}%"} for tick in across],
        "chosen": None if share is None or share > most else round(CURVE_UNITS * share / most),
    }
