"""Differences in the report: against the reference, against what costs nothing, under other priors, and the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.metrics import LOSSES, higher_is_better
from stages.pages.drawing import CURVE_UNITS, Axis, corner_ticks, nice_step, points, shared_axis

ARMS = {
    "threshold": "Threshold",
    "logit_adjustment": "Logit adjustment",
    "temperature": "Temperature",
    "tau_normalisation": "τ-normalisation",
}


def difference_axis(estimates: Sequence[Mapping[str, float]], most: float = 0.1) -> Axis:
    """An axis with 0 in its middle, as wide as the intervals but no wider than `most`."""
    reach = min(most, max(max(abs(each["low"]), abs(each["high"])) for each in estimates))
    step = nice_step(reach, 2)
    end = round(step * max(1, -(-reach // step)), 10)
    return Axis(low=-end, high=end, ticks=(-end, 0.0, end))


def differences(
    board: Mapping[str, Any], names: Sequence[str], metrics: Sequence[tuple[str, str]], family: str
) -> dict[str, Any] | None:
    """Rows of every technique's difference from the reference for some metrics (key, title); None with nothing to compare."""
    compared = {name: board["techniques"][name]["comparison"][family] for name in names if name != board["reference"]}
    if not compared:
        return None
    axes = {
        key: difference_axis(
            [{"value": each["metrics"][key]["difference"], **each["metrics"][key]} for each in compared.values()]
        )
        for key, _ in metrics
    }
    rows = []
    for name, each in compared.items():
        cells = []
        for key, title in metrics:
            found = each["metrics"][key]
            cells.append({**found, "title": title, **axes[key].interval({"value": found["difference"], **found})})
        rows.append({"at": names.index(name), "name": name, "cells": cells, "mcnemar": each["mcnemar"]["p_adjusted"]})
    return {
        "columns": [{"title": title, "loss": key in LOSSES, "marks": axes[key].marks()} for key, title in metrics],
        "rows": sorted(rows, key=lambda row: -row["cells"][0]["difference"]),
    }


def in_words(compared: Mapping[str, Mapping[str, Any]], reference: str, subject: str) -> str:
    """One sentence: which techniques are shown to differ from the reference; nothing where none could be."""
    if any("inconclusive" in each["verdict"] for each in compared.values()):
        return ""
    better, worse = ([name for name, each in compared.items() if each["verdict"] == verdict] for verdict in ("better", "worse"))
    said = (
        f"{', '.join(better)} {'is' if len(better) == 1 else 'are'} better" if better else "no technique is shown to be better"
    )
    return f"By {subject} {said} than {reference}" + (f"; {', '.join(worse)} worse." if worse else ".")


def post_hoc(board: Mapping[str, Any], names: Sequence[str], metric: str) -> dict[str, Any]:
    """Each technique as it is and with what costs no training, by one metric of decisions."""
    techniques = board["techniques"]
    columns = ["As it is", *ARMS.values()]
    estimates = {
        name: [techniques[name]["corrected"][metric], *(techniques[name]["post_hoc"].get(arm, {}).get(metric) for arm in ARMS)]
        for name in names
    }
    axis = shared_axis([each for row in estimates.values() for each in row if each], loss=not higher_is_better(metric), limit=1)
    rows = [
        {
            "at": names.index(name),
            "name": name,
            "cells": [{**each, **axis.interval(each)} if each else None for each in row],
        }
        for name, row in estimates.items()
    ]
    return {"columns": columns, "rows": sorted(rows, key=lambda row: -row["cells"][0]["value"])}


def prior_grid(evaluations: Mapping[str, Any], names: Sequence[str], metric: str) -> dict[str, Any]:
    """One metric of every technique over the class ratios, raw and corrected, as lines."""
    # JSON files have their keys in the order of the alphabet.
    ratios = sorted(next(iter(evaluations.values()))["prior_grid"], key=lambda ratio: float(ratio.partition(":")[2]))
    values = {
        family: {name: [evaluations[name]["prior_grid"][ratio][family][metric]["value"] for ratio in ratios] for name in names}
        for family in ("corrected", "raw")
    }
    # The upper part that holds the better half of the techniques at every ratio.
    lowest = sorted(min(each) for each in values["corrected"].values())[len(names) // 2]
    corner = min(0.9, max(0.0, int(10 * lowest - 0.5) / 10))
    across = [at / (len(ratios) - 1) for at in range(len(ratios))]
    return {
        "others": [
            {"at": round(100 * at, 2), "value": ratio.partition(":")[2]} for at, ratio in zip(across, ratios, strict=True)
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
