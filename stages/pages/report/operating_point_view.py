"""The operating point in the report: the rule, what it decides and what that gives; and which raw posteriors can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.operating_point import BUDGET_UNIT, cost_matrix, threshold
from stages.pages.drawing import shared_axis
from stages.pages.model_card.view import decision_in_words, rule_in_words

METRICS = ("f1", "precision", "recall", "false_positive_rate")


def boundary(point: Mapping[str, Any], labels: Sequence[str], label: int) -> float | None:
    """The probability above which one of two classes is called; of more classes the weight of its probability, if any."""
    costs = cost_matrix(point["costs"], labels)
    if len(labels) == 2:
        return threshold(costs, label)
    return None if point["rule"] == "cost" else float(costs[label].max())


def operating_point(
    board: Mapping[str, Any], evaluations: Mapping[str, Any], names: Sequence[str], selected: Mapping[str, Any]
) -> dict[str, Any]:
    """The rule and the selected technique's decision in words, and for each label every technique's numbers on test."""
    labels, techniques = board["labels"], board["techniques"]
    points = {name: [each["operating_point"] for each in evaluations[name]["seeds"].values()] for name in names}
    chosen = evaluations[selected["technique"]]["seeds"][str(selected["seed"])]["operating_point"]
    tables = []
    for at, label in enumerate(labels):
        keys = [f"{label}.{metric}" for metric in METRICS]
        axes = {
            key: shared_axis(
                [techniques[name]["operating_point"][key] for name in names],
                loss=key.endswith("false_positive_rate"),
                limit=1,
            )
            for key in keys
        }
        rows = [
            {
                "at": names.index(name),
                "name": name,
                "boundary": boundary(points[name][0], labels, at),
                "cells": [
                    {**techniques[name]["operating_point"][key], **axes[key].interval(techniques[name]["operating_point"][key])}
                    for key in keys
                ],
                "plain": techniques[name]["corrected"][f"{label}.f1"]["value"],
                "met": sum(point["met"] for point in points[name]),
            }
            for name in names
        ]
        tables.append({"label": at, "rows": sorted(rows, key=lambda row: -row["cells"][0]["value"])})
    return {
        "rule": rule_in_words({**chosen, "met": True}),
        "decision": decision_in_words(chosen, labels),
        "costs": [(true, [chosen["costs"][true][predicted] for predicted in labels]) for true in labels],
        "limited": chosen["limit"] is not None,
        "seeds": len(points[names[0]]),
        "missed": [name for name in names if not all(point["met"] for point in points[name])],
        "boundary": "From" if len(labels) == 2 else "Weight",
        "per": BUDGET_UNIT,
        "tables": tables,
    }


def disagree(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether each value lies outside the other's interval."""
    return not (other["low"] <= one["value"] <= other["high"] or one["low"] <= other["value"] <= one["high"])


def disagreements(board: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """For each label the techniques whose raw and corrected numbers disagree, in one sentence each."""
    made = []
    for at, label in enumerate(board["labels"]):
        sentences = []
        for name in names:
            technique = board["techniques"][name]
            parts = []
            for metric, words, show in (
                ("mean_probability", f"the mean probability of {label}", "{:.1%}"),
                ("f1", f"the F1 of {label}", "{:.3f}"),
            ):
                raw, corrected = (technique[family][f"{label}.{metric}"] for family in ("raw", "corrected"))
                shown = [show.format(each["value"]) for each in (raw, corrected)]
                if disagree(raw, corrected) and shown[0] != shown[1]:
                    parts.append(f"{words} is {shown[0]} raw and {shown[1]} corrected")
            if parts:
                fitted, production = technique["fitted_prior"][label]["value"], board["production_prior"][label]
                why = f"its raw probabilities are right for {fitted:.1%} {label}, production has {production:.1%}"
                sentences.append({"name": name, "words": f"{', '.join(parts)}: {why}."})
        made.append({"label": at, "sentences": sentences})
    return made
