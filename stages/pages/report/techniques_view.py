"""The techniques in the report: curves, confusion matrices, probe texts and effective priors."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from stages.pages.drawing import CURVE_UNITS, LEAST_IN_BIN, corner_ticks, dots, joined, points, share_axis
from stages.pages.report.classes_view import confused_pairs
from stages.pages.report.results import FAMILIES, Results
from stages.pages.words import percent


def curves(results: Results) -> dict[str, Any]:
    """Precision-recall and calibration curves of every label."""
    panels = []
    for label_index, label in results.panels:
        f1 = [results.board["techniques"][name]["corrected"][f"{label}.f1"]["value"] for name in results.names]
        # The corner that holds the better half of the techniques, with a margin.
        corner = min(0.9, max(0.0, floor(10 * float(np.median(f1)) - 1) / 10))
        lines = curve_lines(results, label)
        panels.append({"label": label_index, "corner": corner, "corner_ticks": corner_ticks(corner), "lines": lines})
    order = sorted(range(len(results.names)), key=lambda at: -results.drawing_rank(results.role(results.names[at])))
    return {"panels": panels, "order": order, "units": CURVE_UNITS, "least": LEAST_IN_BIN}


def curve_lines(results: Results, label: str) -> dict[str, list[dict[str, Any]]]:
    """A label's precision-recall curves and its calibration curves, corrected and raw, with a line for each technique."""
    lines: dict[str, list[dict[str, Any]]] = {"precision_recall": [], "corrected": [], "raw": []}
    for index, name in enumerate(results.names):
        curve = results.evaluations[name]["curves"]
        common = {"at": index, "name": name, "role": results.role(name)}
        ranked = curve["precision_recall"][label]
        lines["precision_recall"].append({**common, "path": points(ranked["recall"], ranked["precision"]), "dots": []})
        calibrations = {"corrected": curve["calibration"][label], "raw": results.calibration[name][label]}
        for family, fine in calibrations.items():
            bins = joined(fine)
            lines[family].append({**common, "path": points(bins["mean_probability"], bins["share"]), "dots": dots(bins)})
    for family_lines in lines.values():
        family_lines.sort(key=lambda line: results.drawing_rank(line["role"]))
    return lines


def confusions(results: Results) -> list[dict[str, Any]]:
    """Each technique's confusion matrices of the first seed, with each count's share of its row; pairs of many classes."""
    figures = []
    for index, name in enumerate(results.names):
        matrices: list[dict[str, Any]] = []
        for family in FAMILIES:
            table = results.first_seed(name)["confusion"][family]
            if results.many:
                matrices.append({"family": family, "pairs": confused_pairs(table, results.labels)})
                continue
            rows = [[{"count": count, "share": count / max(1, sum(row))} for count in row] for row in table]
            matrices.append({"family": family, "rows": rows})
        figures.append({"at": index, "name": name, "role": results.role(name), "matrices": matrices})
    return figures


def probe(results: Results) -> dict[str, Any]:
    """Probability of each label for each probe text and technique, mean over the seeds."""
    means = results.probe.groupby(["label", "text", "technique"])[list(FAMILIES)].mean()
    texts = list(results.probe["text"].unique())
    shown = texts if results.params.report.show_texts else [f"text {number}" for number in range(1, len(texts) + 1)]
    tables = [
        {
            "label": index,
            "family": family,
            "rows": [
                {"text": as_shown, "cells": [float(means.loc[(label, text, name), family]) for name in results.names]}
                for text, as_shown in zip(texts, shown, strict=True)
            ],
        }
        for index, label in results.panels
        for family in FAMILIES
    ]
    return {"tables": tables}


def priors(results: Results) -> list[dict[str, Any]]:
    """Declared, fitted and used effective prior of each technique, by label, on one log-odds axis per label."""
    panels = []
    evaluations = {name: results.fitted(name) for name in results.names}
    for label_index, label in results.panels:
        production = results.board["production_prior"][label]
        shares = [production, *(evaluation["fitted_prior"][label]["value"] for evaluation in evaluations.values())]
        shares += [evaluation["declared_prior"][label] for evaluation in evaluations.values() if evaluation["declared_prior"]]
        axis = share_axis(shares)
        rows = []
        for index, (name, evaluation) in enumerate(evaluations.items()):
            declared = evaluation["declared_prior"] and evaluation["declared_prior"][label]
            rows.append(
                {
                    "at": index,
                    "name": name,
                    "role": results.role(name),
                    "declared": declared,
                    "declared_at": None if declared is None else axis.at(declared),
                    "fitted": evaluation["fitted_prior"][label],
                    "interval": axis.interval(evaluation["fitted_prior"][label]),
                    "used": "declared" if evaluation["effective_prior"] == evaluation["declared_prior"] else "measured",
                    "safe": evaluation["safe"],
                    "temperature": evaluation["calibration"]["temperature"],
                }
            )
        panel = {"label": label_index, "marks": axis.marks(), "production": production, "rows": rows}
        panels.append({**panel, "production_at": axis.at(production)})
    return panels


def majority(results: Results) -> dict[str, str] | None:
    """Name, accuracy and F1 of the technique that always predicts the largest class; None if it was not trained."""
    for name in results.names:
        technique = results.board["techniques"][name]
        if technique["technique"] == "majority":
            accuracy, f1 = (technique["raw"][key]["value"] for key in ("accuracy", f"{results.rarest}.f1"))
            return {"name": name, "accuracy": percent(accuracy), "f1": f"{f1:.3f}"}
    return None
