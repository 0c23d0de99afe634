"""The leaderboard of the report: every technique at its operating point, in the order in which the selection ranks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.operating_point import cost_matrix, threshold
from stages.pages.drawing import Axis, shared_axis
from stages.pages.report.baseline_view import compared_metric, differences
from stages.pages.report.results import Results
from stages.pages.words import metric_name, probability, signed

# Thresholds nearer to 0 or 1 need more than three decimals.
LEAST_SHOWN = 0.001
RATES = (("precision", "Precision"), ("recall", "Recall"))


def leaderboard(results: Results) -> dict[str, Any]:
    """Rows of all techniques for each label, ranked by the out-of-fold value of the metric that selects."""
    metric = results.params.select.metric
    loss = metric in LOSSES
    estimates = [results.selecting(name) for name in results.names]
    axis = shared_axis(estimates, loss=loss, limit=float("inf") if metric == "log_loss" else 1)
    compared = differences(results, compared_metric(results))
    tables = []
    for index, label in results.panels:
        rates = {
            key: shared_axis(
                [results.board["techniques"][name]["out_of_fold"][f"{label}.{key}"] for name in results.names],
                loss=False,
                limit=1,
            )
            for key, _ in RATES
        }
        rows = [leaderboard_row(results, name, label, axis, rates, compared.get(name)) for name in results.ranked]
        tables.append({"label": index, "rows": rows})
    return {
        "metric": metric_name(metric),
        "compared": metric_name(compared_metric(results)),
        "loss": loss,
        "marks": axis.marks(),
        "parts": max(1, len(axis.ticks) - 1),
        "boundary": len(results.labels) == 2,
        "tables": tables,
    }


def leaderboard_row(
    results: Results, name: str, label: str, axis: Axis, rates: Mapping[str, Axis], compared: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One technique's cells; `compared` is its difference from the baseline on test, None for the baseline."""
    technique = results.board["techniques"][name]
    own = results.selecting(name)
    cells = []
    for key, title in RATES:
        estimate = technique["out_of_fold"][f"{label}.{key}"]
        cells.append({"title": f"Out-of-fold {title.lower()}", **estimate, **rates[key].interval(estimate)})
    return {
        "at": results.names.index(name),
        "name": name,
        "technique": technique["technique"],
        "role": results.role(name),
        "own": {"title": f"Out-of-fold {metric_name(results.params.select.metric)}", **own, **axis.interval(own)},
        "guide": axis.at(results.selecting(results.board["reference"])["value"]),
        "cells": cells,
        "boundary": boundary_of(results.fitted(name)["operating_point"], results.labels, label),
        "verdict": compared["verdict"] if compared else None,
        "difference": None if compared is None else signed(compared["difference"]),
        "ends": "" if compared is None else f"{signed(compared['low'])} to {signed(compared['high'])}",
        "operations": technique["multiply_adds"],
        "excluded": name not in results.selection["candidates"],
    }


def boundary_of(point: Mapping[str, Any], labels: list[str], label: str) -> tuple[float, str] | None:
    """The threshold of one of two classes, as a number and as shown; None with more classes."""
    if len(labels) > 2:
        return None
    value = threshold(cost_matrix(point["costs"], labels), labels.index(label))
    return value, f"{value:.3f}" if LEAST_SHOWN <= value <= 1 - LEAST_SHOWN else probability(value)
