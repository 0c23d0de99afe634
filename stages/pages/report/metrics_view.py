"""All test metrics of the most probable class in the report: rows of every technique, for each label, raw and corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ballast.evaluation.metrics import LOSSES
from stages.pages.drawing import Axis, shared_axis
from stages.pages.report.results import FAMILIES, Results


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric's column of the table: the key of the metric, its heading and its meaning."""

    metric: str
    title: str
    meaning: str
    per_class: bool = True

    def key(self, label: str) -> str:
        """The metric's name for a label."""
        return f"{label}.{self.metric}" if self.per_class else self.metric

    @property
    def loss(self) -> bool:
        """Whether lower is better."""
        return self.metric in LOSSES


COLUMNS = (
    Column(metric="f1", title="F1", meaning="Harmonic mean of precision and recall of the chosen class. 1 is perfect."),
    Column(
        metric="precision",
        title="Precision",
        meaning="Share of the messages predicted as the chosen class that belong to it.",
    ),
    Column(metric="recall", title="Recall", meaning="Share of the messages of the chosen class that are predicted as such."),
    Column(
        metric="pr_auc",
        title="PR AUC",
        meaning="Area under the precision-recall curve (average precision). It measures how well the class is ranked.",
    ),
    Column(metric="macro_f1", title="Macro F1", meaning="Unweighted mean of the F1 of all classes.", per_class=False),
    Column(
        metric="accuracy",
        title="Accuracy",
        meaning="Share of messages predicted correctly. It is misleading if a class is rare, as its errors hardly count.",
        per_class=False,
    ),
    Column(
        metric="log_loss",
        title="Log loss",
        meaning="Mean negative log probability of the true class. Lower is better. It does not depend on a threshold.",
        per_class=False,
    ),
    Column(
        metric="ece",
        title="ECE",
        meaning="Expected calibration error: mean gap between the confidence and the share of correct predictions."
        " Lower is better.",
        per_class=False,
    ),
)


def all_metrics(results: Results) -> dict[str, Any]:
    """Rows for each label and family. A column has the same axis in both families."""
    techniques = results.board["techniques"]
    tables, axes = [], []
    for index, label in results.panels:
        scales = {
            column.metric: shared_axis(
                [techniques[name][family][column.key(label)] for name in results.names for family in FAMILIES],
                loss=column.loss,
                limit=np.inf if column.metric == "log_loss" else 1,
            )
            for column in COLUMNS
        }
        axes.append({"label": index, "marks": scales["f1"].marks(), "parts": max(1, len(scales["f1"].ticks) - 1)})
        for family in FAMILIES:
            rows = [metrics_row(results, name, label, family, scales) for name in results.names]
            rows.sort(key=lambda row: (-row["cells"][0]["value"], row["name"]))
            tables.append({"label": index, "family": family, "rows": rows, "parts": axes[-1]["parts"]})
    return {"columns": COLUMNS, "axes": axes, "tables": tables}


def metrics_row(results: Results, name: str, label: str, family: str, scales: Mapping[str, Axis]) -> dict[str, Any]:
    """One technique's cells for a label and family."""
    board = results.board["techniques"]
    technique = board[name]
    reference = board[results.board["reference"]][family]
    cells = []
    for column in COLUMNS:
        estimate = technique[family][column.key(label)]
        cells.append({"title": column.title, **estimate, **scales[column.metric].interval(estimate)})
    declared = technique["declared_prior"]
    return {
        "at": results.names.index(name),
        "name": name,
        "technique": technique["technique"],
        "role": results.role(name),
        "cells": cells,
        "guide": scales["f1"].at(reference[f"{label}.f1"]["value"]),
        "declared": None if declared is None else declared[label],
        "fitted": technique["fitted_prior"][label]["value"],
        "weights": technique["parameters"],
    }
