"""One table of all classes, for data with too many classes for panels and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.pages.drawing import shared_axis
from stages.pages.report.results import Results

RATES = {"f1": "F1", "precision": "Precision", "recall": "Recall"}
# Pairs of classes that the table of confusions shows for each technique.
MOST_PAIRS = 20


def class_table(results: Results) -> dict[str, Any] | None:
    """Counts, test metrics at the operating point and the most frequent confusion of each class, the lowest F1 first.

    None if every class has panels of its own.
    """
    if not results.many:
        return None
    reached = results.board["techniques"][results.selected["technique"]]["operating_point"]
    axes = {key: shared_axis([reached[f"{label}.{key}"] for label in results.labels], loss=False, limit=1) for key in RATES}
    table = np.array(results.first_seed(results.selected["technique"])["confusion"]["corrected"])
    rows = []
    for index, label in enumerate(results.labels):
        estimates = {key: reached[f"{label}.{key}"] for key in RATES}
        others = np.where(np.arange(len(table)) == index, 0, table[index])
        other = int(others.argmax())
        rows.append(
            {
                "label": label,
                "production": results.board["production_prior"][label],
                "train": results.ingest["splits"]["train"][label],
                "test": results.ingest["splits"]["test"][label],
                "cells": [
                    {"title": title, **estimates[key], **axes[key].interval(estimates[key])} for key, title in RATES.items()
                ],
                "confused": None if not others[other] else (results.labels[other], int(others[other])),
            }
        )
    return {"columns": list(RATES.values()), "rows": sorted(rows, key=lambda row: row["cells"][0]["value"])}


def confused_pairs(table: list[list[int]], labels: list[str]) -> list[dict[str, Any]]:
    """The most frequent errors of a confusion matrix (K, K), rows being true classes: true, predicted, count, share of the row.

    >>> confused_pairs([[8, 2, 0], [0, 5, 0], [3, 0, 1]], ["a", "b", "c"])[0]
    {'true': 'c', 'predicted': 'a', 'count': 3, 'share': 0.75}
    """
    counts = np.array(table)
    support = np.maximum(1, counts.sum(axis=1))
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = []
    for at in order[counts.ravel()[order] > 0].tolist():
        true, predicted = divmod(at, len(labels))
        count = int(counts[true, predicted])
        pairs.append(
            {"true": labels[true], "predicted": labels[predicted], "count": count, "share": float(count / support[true])}
        )
    return pairs
