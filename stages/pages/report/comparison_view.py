"""Differences in the report: from the reference, from post hoc corrections, under other priors, and the claims of articles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.comparison import MARGIN
from ballast.evaluation.metrics import LOSSES, higher_is_better
from stages.pages.drawing import CURVE_UNITS, OUTLYING, Axis, corner_ticks, nice_step, points, shared_axis
from stages.pages.report.baseline_view import compared_metric
from stages.pages.report.results import FAMILIES, Results
from stages.pages.words import capitalize_first, metric_name

ARMS = {
    "threshold": "Threshold",
    "logit_adjustment": "Logit adjustment",
    "temperature": "Temperature",
    "tau_normalisation": "τ-normalisation",
}
# Differences within this reach are drawn on one axis, even if most are smaller.
LEAST_REACH = 0.004
# Larger differences are drawn at the edge, so that those between close techniques stay visible.
MOST_REACH = 0.1
COMPARED = (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"))


def centred_axis(reach: float) -> Axis:
    """An axis centred on 0 that ends at a round number beyond `reach`.

    Examples
    --------
    >>> centred_axis(0.017).ticks
    (-0.02, 0.0, 0.02)
    """
    step = nice_step(reach, 2)
    end = round(step * max(1, -(-reach // step)), 10)
    return Axis(low=-end, high=end, ticks=(-end, 0.0, end))


def difference_axis(estimates: Sequence[Mapping[str, float]]) -> Axis:
    """An axis centred on 0, as wide as the intervals, without those that reach much farther than the others.

    Examples
    --------
    >>> near, far = {"low": -0.004, "high": 0.009}, {"low": -0.9, "high": -0.8}
    >>> difference_axis([near, near, far]).ticks
    (-0.01, 0.0, 0.01)
    """
    ends = sorted(max(abs(estimate["low"]), abs(estimate["high"])) for estimate in estimates)
    reach = ends[-1]
    for rank in range(len(ends) // 2, len(ends) - 1):
        if ends[rank + 1] > OUTLYING * max(ends[rank], LEAST_REACH):
            reach = ends[rank]
            break
    return centred_axis(min(reach, MOST_REACH))


def differences(
    board: Mapping[str, Any], names: Sequence[str], metrics: Sequence[tuple[str, str]], family: str
) -> dict[str, Any] | None:
    """Rows of every technique's difference from the reference in some metrics (key, title); None without other techniques."""
    compared = {name: board["techniques"][name]["comparison"][family] for name in names if name != board["reference"]}
    if not compared:
        return None
    axes = {key: difference_axis([comparison["metrics"][key] for comparison in compared.values()]) for key, _ in metrics}
    rows = []
    for name, comparison in compared.items():
        cells = []
        for key, title in metrics:
            entry = comparison["metrics"][key]
            cells.append({**entry, "title": title, **axes[key].interval({**entry, "value": entry["difference"]})})
        rows.append({"at": names.index(name), "name": name, "cells": cells, "mcnemar": comparison["mcnemar"]["p_adjusted"]})
    return {
        "columns": [{"title": title, "loss": key in LOSSES, "marks": axes[key].marks()} for key, title in metrics],
        "rows": sorted(rows, key=lambda row: -row["cells"][0]["difference"]),
    }


def post_hoc(board: Mapping[str, Any], names: Sequence[str], metric: str) -> dict[str, Any]:
    """Each technique as trained and after each correction that needs no training, by one metric of decisions."""
    techniques = board["techniques"]
    columns = ["As trained", *ARMS.values()]
    estimates = {
        name: [techniques[name]["corrected"][metric], *(techniques[name]["post_hoc"].get(arm, {}).get(metric) for arm in ARMS)]
        for name in names
    }
    present = [estimate for row in estimates.values() for estimate in row if estimate]
    axis = shared_axis(present, loss=not higher_is_better(metric), limit=1)
    rows = [
        {
            "at": names.index(name),
            "name": name,
            "cells": [{**estimate, **axis.interval(estimate)} if estimate else None for estimate in row],
        }
        for name, row in estimates.items()
    ]
    return {"columns": columns, "rows": sorted(rows, key=lambda row: -row["cells"][0]["value"])}


def prior_grid(evaluations: Mapping[str, Any], names: Sequence[str], metric: str) -> dict[str, Any]:
    """One metric of every technique over the class ratios, raw and corrected, as lines."""
    # The keys of JSON files are sorted as text.
    ratios = sorted(next(iter(evaluations.values()))["prior_grid"], key=lambda ratio: float(ratio.partition(":")[2]))
    values = {
        family: {name: [evaluations[name]["prior_grid"][ratio][family][metric]["value"] for ratio in ratios] for name in names}
        for family in FAMILIES
    }
    # The upper part that holds the better half of the techniques at every ratio.
    lowest = sorted(min(line) for line in values["corrected"].values())[len(names) // 2]
    corner = min(0.9, max(0.0, int(10 * lowest - 0.5) / 10))
    across = [index / (len(ratios) - 1) for index in range(len(ratios))]
    return {
        "others": [
            {"at": round(100 * place, 2), "value": ratio.partition(":")[2]} for place, ratio in zip(across, ratios, strict=True)
        ],
        "ticks": corner_ticks(corner),
        "box": [0, 0, CURVE_UNITS, CURVE_UNITS],
        "lines": {
            family: [
                {
                    "at": names.index(name),
                    "name": name,
                    "path": points(across, [max(0.0, (value - corner) / (1 - corner)) for value in line]),
                }
                for name, line in by_name.items()
            ]
            for family, by_name in values.items()
        },
    }


def comparisons(results: Results) -> dict[str, Any]:
    """Differences from the reference, post hoc corrections, other class shares and the claims; tables by label."""
    board, names = results.board, results.names
    tables: dict[str, list[tuple[int, Any]]] = {"decided": [], "differences": [], "post_hoc": [], "grid": []}
    selecting = compared_metric(results)
    for index, label in results.panels:
        rates = {selecting: capitalize_first(metric_name(selecting)), **{f"{label}.{key}": title for key, title in COMPARED}}
        tables["decided"].append((index, differences(board, names, list(rates.items()), "operating_point")))
        metrics = [*((f"{label}.{metric}", title) for metric, title in COMPARED), ("log_loss", "Log loss")]
        for family in FAMILIES:
            table = differences(board, names, metrics, family)
            tables["differences"].append((index, table and {**table, "family": family}))
        tables["post_hoc"].append((index, post_hoc(board, names, f"{label}.f1")))
        tables["grid"].append((index, prior_grid(results.evaluations, names, f"{label}.f1")))
    by_label: dict[str, Any] = {
        key: [{"label": index, **table} for index, table in entries if table is not None] for key, entries in tables.items()
    }
    return {**by_label, "claims": results.claims, "margin": MARGIN}
