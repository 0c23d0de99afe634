"""Mistakes of the techniques in the report: messages to read, slices of the test set, and effects of perturbing probe texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ballast.data.perturbations import probability_drops
from stages.pages.drawing import shared_axis
from stages.pages.words import shortened

# Longer messages make the tables unreadable. A neighbour only serves as a comparison.
SHOWN_CHARACTERS = 300
NEIGHBOUR_CHARACTERS = 100
METRICS = {"recall": "Recall", "precision": "Precision", "f1": "F1"}
# The gap between F1 and 1 that has the darkest colour.
DARKEST = 0.5


def message_lists(analysis: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Every list of messages in the error analysis."""
    for messages in (analysis["shared"], analysis["suspects"], *analysis["mistakes"].values()):
        yield messages["shown"]


def rows_of(analysis: Mapping[str, Any]) -> list[int]:
    """The rows of all messages that the error analysis names, sorted."""
    neighbours = [neighbour["row"] for neighbours in analysis["neighbours"].values() for neighbour in neighbours]
    return sorted({*neighbours, *(entry["row"] for messages in message_lists(analysis) for entry in messages)})


def with_texts(analysis: Mapping[str, Any], messages: Mapping[str, Any], texts: Mapping[int, str]) -> dict[str, Any]:
    """A list of messages with their texts and neighbours; a message without text is shown by its row."""

    def shown(row: int, n_characters: int) -> str:
        return shortened(texts[row], n_characters) if row in texts else f"row {row}"

    rows = [
        {
            **entry,
            "text": shown(entry["row"], SHOWN_CHARACTERS),
            "neighbours": [
                {**neighbour, "text": shown(neighbour["row"], NEIGHBOUR_CHARACTERS)}
                for neighbour in analysis["neighbours"][str(entry["row"])]
            ],
        }
        for entry in messages["shown"]
    ]
    return {"count": messages["count"], "rows": rows}


def slices_of_technique(analysis: Mapping[str, Any], name: str, label: str) -> dict[str, Any]:
    """A technique's recall, precision and F1 of a label in each slice, on one scale per metric."""
    slices = analysis["slices"]
    by_slice = {part: slices["techniques"][name][part][label] for part in slices["order"]}
    estimates = {key: [metrics[key] for metrics in by_slice.values() if metrics and metrics[key]] for key in METRICS}
    axes = {key: shared_axis(values, loss=False, limit=1) for key, values in estimates.items() if values}
    rows = [
        {
            "name": part,
            "messages": slices["messages"][part],
            "support": slices["support"][part][label],
            "cells": [
                {**metrics[key], **axes[key].interval(metrics[key]), "title": title} if metrics[key] else None
                for key, title in METRICS.items()
            ]
            if metrics
            else [],
        }
        for part, metrics in by_slice.items()
    ]
    return {"columns": list(METRICS.values()), "rows": rows}


def slices_of_all(analysis: Mapping[str, Any], names: Sequence[str], label: str) -> list[dict[str, Any]]:
    """The F1 of a label for each slice and technique, with all metrics as its title; None for a slice with too few messages."""
    slices = analysis["slices"]

    def cell(name: str, part: str) -> dict[str, Any] | None:
        metrics = slices["techniques"][name][part][label]
        if metrics is None:
            return None
        values = [
            f"{title} {metrics[key]['value']:.3f} ({metrics[key]['low']:.3f} to {metrics[key]['high']:.3f})"
            for key, title in METRICS.items()
            if metrics[key]
        ]
        f1 = metrics["f1"]["value"]
        return {"f1": f1, "depth": min(1.0, (1 - f1) / DARKEST), "title": f"{name}: {', '.join(values)}"}

    return [
        {"name": part, "support": slices["support"][part][label], "cells": [cell(name, part) for name in names]}
        for part in slices["order"]
    ]


def errors(
    analysis: Mapping[str, Any],
    texts: Mapping[int, str],
    names: Sequence[str],
    panels: Sequence[tuple[int, str]],
    selected: str,
) -> dict[str, Any]:
    """The section on errors; `texts` by row, empty if they are hidden."""
    suspects = analysis["suspects"]
    return {
        "messages": analysis["messages"],
        "counted": analysis["counted"],
        "left_out": [name for name in names if name not in analysis["counted"]],
        "mistakes": [
            {"at": index, "name": name, "open": name == selected, **with_texts(analysis, analysis["mistakes"][name], texts)}
            for index, name in enumerate(names)
        ],
        "shared": with_texts(analysis, analysis["shared"], texts),
        "suspects": {**suspects, **with_texts(analysis, suspects, texts)},
        "least": analysis["slices"]["least"],
        "slices": [
            {
                "label": index,
                **slices_of_technique(analysis, selected, label),
                "all": slices_of_all(analysis, names, label),
            }
            for index, label in panels
        ],
    }


def by_text(table: pd.DataFrame, family: str, labels: Sequence[str]) -> pd.DataFrame:
    """Posteriors of the labels by probe text, mean over the seeds."""
    return table.pivot_table(index="text", columns="label", values=family, aggfunc="mean")[list(labels)]


def drop_cell(drops: Mapping[str, Any], index: int, skipped: str) -> dict[str, Any]:
    """A cell for class `index`: its mean probability before and after, the change in hundredths, and the skipped texts."""
    drop = {key: values[index].item() for key, values in drops.items()}
    change = round(100 * (drop["after"] - drop["before"])) if drop["called"] else 0
    counts = {"n_predicted": drop["called"], "n_unchanged": drop["still"]}
    return {**counts, "before": drop["before"], "after": drop["after"], "change": change, "skipped": skipped}


def skipped_texts(perturbations: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(technique, perturbation) -> how many texts were not scored, with the reason."""
    skipped = perturbations[perturbations["skipped"].fillna("") != ""]
    unique = skipped.drop_duplicates(["technique", "perturbation", "text"])
    reasons = unique.groupby(["technique", "perturbation"])["skipped"]
    return {key: ", ".join(f"{count} {reason}" for reason, count in part.value_counts().items()) for key, part in reasons}  # type: ignore[misc]


def perturbed(
    probe: pd.DataFrame,
    perturbations: pd.DataFrame,
    names: Sequence[str],
    labels: Sequence[str],
    panels: Sequence[tuple[int, str]],
) -> dict[str, Any] | None:
    """Change of each label's probability by perturbation, family and technique; None without perturbations."""
    kinds = list(perturbations["perturbation"].unique())
    if not kinds:
        return None
    scored = perturbations[perturbations["skipped"].fillna("") == ""]
    skipped = skipped_texts(perturbations)
    rows: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for family in ("corrected", "raw"):
        for at, name in enumerate(names):
            before = by_text(probe[probe["technique"] == name], family, labels)
            of_technique = scored[scored["technique"] == name]
            drops = {}
            for kind in kinds:
                part = of_technique[of_technique["perturbation"] == kind]
                after = by_text(part, family, labels) if len(part) else before.iloc[:0]
                drops[kind] = probability_drops(before.loc[after.index].to_numpy(), after.to_numpy())
            for index, _ in panels:
                cells = [drop_cell(drops[kind], index, skipped.get((name, kind), "")) for kind in kinds]
                rows.setdefault((index, family), []).append({"at": at, "name": name, "cells": cells})
    return {
        "kinds": kinds,
        "tables": [{"label": index, "family": family, "rows": table} for (index, family), table in rows.items()],
    }
