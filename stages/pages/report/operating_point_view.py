"""The operating point in the report: the rule, its decisions and their metrics; and which raw posteriors can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.operating_point import BUDGET_UNIT, cost_matrix, threshold
from stages.pages.drawing import shared_axis
from stages.pages.words import decision_rule, operating_point_rule

METRICS = ("f1", "precision", "recall", "false_positive_rate")


def boundary(point: Mapping[str, Any], labels: Sequence[str], label: int) -> float | None:
    """The threshold of one of two classes; with more classes, the weight of the class's probability, if it has one."""
    costs = cost_matrix(point["costs"], labels)
    if len(labels) == 2:
        return threshold(costs, label)
    return None if point["rule"] == "cost" else float(costs[label].max())


def operating_point(
    board: Mapping[str, Any],
    evaluations: Mapping[str, Any],
    names: Sequence[str],
    selected: Mapping[str, Any],
    panels: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    """The rule and the selected technique's decision in words, and for each label in panels every technique's test metrics."""
    labels = board["labels"]
    points = {name: evaluations[name]["fitted"]["operating_point"] for name in names}
    point = points[selected["technique"]]
    tables = [
        {"label": index, "rows": operating_point_rows(board["techniques"], names, points, labels, index)} for index, _ in panels
    ]
    return {
        "rule": operating_point_rule({**point, "met": True}),
        "decision": decision_rule(point, labels),
        # A table of the costs of many classes would be a matrix that nobody reads.
        "costs": [(true, [point["costs"][true][predicted] for predicted in labels]) for true in labels]
        if len(panels) == len(labels)
        else [],
        "limited": point["limit"] is not None,
        "missed": [name for name in names if not points[name]["met"]],
        "boundary": "Threshold" if len(labels) == 2 else "Weight",
        "per": BUDGET_UNIT,
        "tables": tables,
    }


def operating_point_rows(
    techniques: Mapping[str, Any],
    names: Sequence[str],
    points: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str],
    label: int,
) -> list[dict[str, Any]]:
    """Every technique's test metrics of a label at its operating point, highest F1 first."""
    keys = [f"{labels[label]}.{metric}" for metric in METRICS]
    axes = {
        key: shared_axis(
            [techniques[name]["operating_point"][key] for name in names], loss=key.endswith("false_positive_rate"), limit=1
        )
        for key in keys
    }
    rows = []
    for name in names:
        estimates = techniques[name]["operating_point"]
        rows.append(
            {
                "at": names.index(name),
                "name": name,
                "boundary": boundary(points[name], labels, label),
                "cells": [{**estimates[key], **axes[key].interval(estimates[key])} for key in keys],
                "plain": techniques[name]["corrected"][f"{labels[label]}.f1"]["value"],
                "met": points[name]["met"],
            }
        )
    return sorted(rows, key=lambda row: -row["cells"][0]["value"])


def disagree(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether each value lies outside the other's interval."""
    return not (other["low"] <= one["value"] <= other["high"] or one["low"] <= other["value"] <= one["high"])


def disagreements(board: Mapping[str, Any], names: Sequence[str], panels: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    """For each label, a sentence on every technique with different raw and corrected metrics."""
    tables = []
    for index, label in panels:
        sentences = []
        for name in names:
            technique = board["techniques"][name]
            parts = []
            for metric, subject, template in (
                ("mean_probability", f"the mean probability of {label}", "{:.1%}"),
                ("f1", f"{label} F1", "{:.3f}"),
            ):
                raw, corrected = (technique[family][f"{label}.{metric}"] for family in ("raw", "corrected"))
                shown = [template.format(estimate["value"]) for estimate in (raw, corrected)]
                if disagree(raw, corrected) and shown[0] != shown[1]:
                    parts.append(f"{subject} is {shown[0]} raw and {shown[1]} corrected")
            if parts:
                fitted, production = technique["fitted_prior"][label]["value"], board["production_prior"][label]
                why = f"Its raw probabilities fit a share of {fitted:.1%} {label}, but production has {production:.1%}."
                sentences.append({"name": name, "words": f"{' and '.join(parts)}. {why}"})
        tables.append({"label": index, "sentences": sentences})
    return tables
