"""What the techniques get wrong, in the report: messages to read, slices, and what perturbing a probe text does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ballast.data.perturbations import probability_drops
from stages.pages.drawing import shared_axis

# Longer messages would make the tables unreadable; a neighbour is only there to be compared.
SHOWN_CHARACTERS = 300
NEIGHBOUR_CHARACTERS = 100
METRICS = {"recall": "Recall", "precision": "Precision", "f1": "F1"}
# The shortfall of F1 that has the darkest colour.
DARKEST = 0.5


def lists(found: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Every list of messages in the results."""
    for each in (found["shared"], found["suspects"], *found["mistakes"].values()):
        yield each["shown"]


def rows_of(found: Mapping[str, Any]) -> list[int]:
    """The rows of all messages that the results name."""
    near = [entry["row"] for each in found["neighbours"].values() for entry in each]
    return sorted({*near, *(entry["row"] for shown in lists(found) for entry in shown)})


def shortened(text: str, most: int) -> str:
    """A text cut to so many characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def listed(found: Mapping[str, Any], each: Mapping[str, Any], texts: Mapping[int, str]) -> dict[str, Any]:
    """A list of messages with their texts, or their rows where there is no text, and their neighbours."""

    def shown(row: int, most: int) -> str:
        return shortened(texts[row], most) if row in texts else f"row {row}"

    rows = [
        {
            **entry,
            "text": shown(entry["row"], SHOWN_CHARACTERS),
            "neighbours": [
                {**near, "text": shown(near["row"], NEIGHBOUR_CHARACTERS)} for near in found["neighbours"][str(entry["row"])]
            ],
        }
        for entry in each["shown"]
    ]
    return {"count": each["count"], "rows": rows}


def of_one(found: Mapping[str, Any], name: str, label: str) -> dict[str, Any]:
    """A technique's recall, precision and F1 of a label in each slice, on one scale per metric."""
    slices = found["slices"]
    of_slices = {each: slices["techniques"][name][each][label] for each in slices["order"]}
    estimates = {key: [cells[key] for cells in of_slices.values() if cells and cells[key]] for key in METRICS}
    axes = {key: shared_axis(each, loss=False, limit=1) for key, each in estimates.items() if each}
    rows = [
        {
            "name": each,
            "messages": slices["messages"][each],
            "support": slices["support"][each][label],
            "cells": [
                {**cells[key], **axes[key].interval(cells[key]), "title": title} if cells[key] else None
                for key, title in METRICS.items()
            ]
            if cells
            else [],
        }
        for each, cells in of_slices.items()
    ]
    return {"columns": list(METRICS.values()), "rows": rows}


def of_all(found: Mapping[str, Any], names: Sequence[str], label: str) -> list[dict[str, Any]]:
    """The F1 of a label for each slice and technique, and in words what is behind it; None where a class has too few."""
    slices = found["slices"]

    def cell(name: str, each: str) -> dict[str, Any] | None:
        metrics = slices["techniques"][name][each][label]
        if metrics is None:
            return None
        said = [
            f"{title} {metrics[key]['value']:.3f} ({metrics[key]['low']:.3f} to {metrics[key]['high']:.3f})"
            for key, title in METRICS.items()
            if metrics[key]
        ]
        f1 = metrics["f1"]["value"]
        return {"f1": f1, "depth": min(1.0, (1 - f1) / DARKEST), "title": f"{name}: {', '.join(said)}"}

    return [
        {"name": each, "support": slices["support"][each][label], "cells": [cell(name, each) for name in names]}
        for each in slices["order"]
    ]


def errors(
    found: Mapping[str, Any], texts: Mapping[int, str], names: Sequence[str], labels: Sequence[str], selected: str
) -> dict[str, Any]:
    """Everything of the section on errors; `texts` by row, none where they are hidden."""
    return {
        "messages": found["messages"],
        "counted": found["counted"],
        "left_out": [name for name in names if name not in found["counted"]],
        "mistakes": [
            {"at": at, "name": name, "open": name == selected, **listed(found, found["mistakes"][name], texts)}
            for at, name in enumerate(names)
        ],
        "shared": listed(found, found["shared"], texts),
        "suspects": {**listed(found, found["suspects"], texts), "issues": found["suspects"]["issues"]},
        "least": found["slices"]["least"],
        "slices": [
            {"label": at, **of_one(found, selected, label), "all": of_all(found, names, label)}
            for at, label in enumerate(labels)
        ],
    }


def by_text(table: pd.DataFrame, family: str, labels: Sequence[str]) -> pd.DataFrame:
    """Posteriors of the labels by probe text, mean over the seeds."""
    return table.pivot_table(index="text", columns="label", values=family, aggfunc="mean")[list(labels)]


def fall(found: Mapping[str, Any], skipped: str) -> dict[str, Any]:
    """A cell: what `probability_drops` found of one class, the change in hundredths, and which texts were left out."""
    return {**found, "change": round(100 * (found["after"] - found["before"])) if found["called"] else 0, "skipped": skipped}


def perturbed(
    probe: pd.DataFrame, perturbations: pd.DataFrame, names: Sequence[str], labels: Sequence[str]
) -> dict[str, Any] | None:
    """How far each perturbation lowers the probability of a label, by label, family and technique; None without any."""
    kinds = list(perturbations["perturbation"].unique())
    if not kinds:
        return None
    scored = perturbations[perturbations["skipped"].fillna("") == ""]
    left_out = perturbations[perturbations["skipped"].fillna("") != ""]
    reasons = left_out.drop_duplicates(["technique", "perturbation", "text"]).groupby(["technique", "perturbation"])["skipped"]
    skipped = {key: ", ".join(f"{n} {reason}" for reason, n in each.value_counts().items()) for key, each in reasons}
    cells: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for family in ("corrected", "raw"):
        for at, name in enumerate(names):
            before = by_text(probe[probe["technique"] == name], family, labels)
            of_technique = scored[scored["technique"] == name]
            found = []
            for kind in kinds:
                part = of_technique[of_technique["perturbation"] == kind]
                after = by_text(part, family, labels) if len(part) else before.iloc[:0]
                found.append(probability_drops(before.loc[after.index].to_numpy(), after.to_numpy()))
            for index in range(len(labels)):
                row = [
                    fall({key: each[key][index].item() for key in each}, skipped.get((name, kind), ""))
                    for kind, each in zip(kinds, found, strict=True)
                ]
                cells.setdefault((index, family), []).append({"at": at, "name": name, "cells": row})
    return {
        "kinds": kinds,
        "tables": [{"label": index, "family": family, "rows": rows} for (index, family), rows in cells.items()],
    }
