"""The HTML page `reports/datasets.html`: which technique helps when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any

from stages.pages.across.sentences import about, p_in_words, sentences
from stages.pages.drawing import CURVE_UNITS, nice_step
from stages.pages.html import SORT, STYLE, environment, script_hash, trusted_source
from stages.store.across_data_sets import Across

HERE = Path(__file__).parent
# What the page lets the reader choose, with the first one shown at first.
METRIC_TITLES = {
    "rare_f1": "F1 of the rarest class",
    "macro_f1": "macro F1",
    "rare_recall": "recall of the rarest class",
    "tail_macro_f1": "macro F1 of the tail classes",
    "accuracy": "accuracy",
    "rare_pr_auc": "PR AUC of the rarest class",
    "log_loss": "log loss",
}
FAMILY_TITLES = {"operating_point": "at the operating point", "corrected": "most probable class"}
# Metrics of probabilities have no decision.
WITHOUT_DECISION = ("rare_pr_auc", "log_loss")
# Height of a row of the diagram, and the width of its axis, in units of the drawing; distance of two bars.
ROW, WIDTH, LANE = 10, 1000, 16
ROOM = 0.08


def views(across: Across) -> list[dict[str, Any]]:
    """One view for each metric and way to decide: its title, the ranks and the table of differences."""
    made = []
    for metric, title in METRIC_TITLES.items():
        for family, decided in FAMILY_TITLES.items():
            if family == "operating_point" and metric in WITHOUT_DECISION:
                continue
            ranks = across.ranks[family].get(metric)
            made.append(
                {
                    "title": title if metric in WITHOUT_DECISION else f"{title}, {decided}",
                    "loss": metric == "log_loss",
                    "diagram": None if ranks is None else diagram(ranks, across),
                    "rows": table_rows(across, family, metric),
                }
            )
    return made


def diagram(ranks: Mapping[str, Any], across: Across) -> dict[str, Any]:
    """The critical-difference diagram: a row for each entry, its mean rank, and bars over entries not shown to differ."""
    order, means = ranks["order"], ranks["mean_ranks"]
    k = len(order)

    def place(rank: float) -> float:
        return round(WIDTH * (rank - 1) / (k - 1), 1)

    lanes = bar_lanes(ranks["level"])
    return {
        "rows": [
            {
                "name": name,
                "role": "reference" if name == across.reference else "other",
                "rank": means[name],
                "p": ranks["against_reference"].get(name),
                "dot": f"M{place(means[name])} {ROW * at + ROW / 2}h0",
            }
            for at, name in enumerate(order)
        ],
        "height": ROW * k,
        "width": WIDTH,
        "grid": [{"at": place(rank), "value": rank} for rank in rank_ticks(k)],
        "critical": f"M0 {ROW / 4}H{min(WIDTH, place(1 + ranks['critical_difference']))}",
        "difference": ranks["critical_difference"],
        "bars": [
            {
                "lane": lane,
                "first": first,
                "last": last,
                "path": f"M{LANE * lane + LANE / 2} {ROW * first + 2}V{ROW * last + 8}",
            }
            for (first, last), lane in zip(ranks["level"], lanes, strict=True)
        ],
        "lanes": LANE * (max(lanes, default=-1) + 1),
        "friedman_words": p_in_words(ranks["friedman"]["p_f"]),
    }


def rank_ticks(k: int) -> list[int]:
    """A few whole ranks from 1 to k.

    >>> rank_ticks(4), rank_ticks(17)
    ([1, 2, 3, 4], [1, 5, 9, 13, 17])
    """
    step = max(1, round((k - 1) / 4))
    return list(range(1, k + 1, step))


def bar_lanes(groups: Sequence[Sequence[int]]) -> list[int]:
    """A lane for each group of positions (first, last), so that overlapping groups do not share one.

    >>> bar_lanes([(0, 3), (1, 5), (4, 6)])
    [0, 1, 0]
    """
    ends: list[int] = []
    lanes = []
    for first, last in groups:
        lane = next((at for at, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        lanes.append(lane)
    return lanes


def table_rows(across: Across, family: str, metric: str) -> list[dict[str, Any]]:
    """For each entry: its verdict with the difference on every data set, and the counts over data sets."""
    rows = []
    for name, entry in across.techniques.items():
        cells = []
        for result in across.data_sets.values():
            own = result["entries"].get(name)
            cells.append(own["differences"][family][metric] if own and own["differences"] else None)
        summary = entry[family][metric]
        rows.append({"name": name, "cells": cells, "counts": summary["verdicts"], "mean": summary["mean"]})
    sign = -1 if metric == "log_loss" else 1
    return sorted(rows, key=lambda row: (row["counts"]["worse"] - row["counts"]["better"], -sign * row["mean"]["value"]))


def against_rarity(across: Across) -> list[dict[str, Any]]:
    """Two charts: the difference in F1 of the rarest class by its share, and by its number of training messages."""
    measured = [
        {"data_set": at, "share": result["share"], "rare": result["train"]["rare"], "name": name, **difference}
        for at, result in enumerate(across.data_sets.values())
        for name, entry in result["entries"].items()
        if entry["differences"] and across.techniques[name]["against_imbalance"]
        for difference in [entry["differences"]["operating_point"]["rare_f1"]]
    ]
    if not measured:
        return []
    titles = {"share": "share of the rarest class", "rare": "training messages of the rarest class"}
    return [scatter(measured, list(across.data_sets), key, title) for key, title in titles.items()]


def scatter(measured: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, title: str) -> dict[str, Any]:
    """One chart with a dot for each entry and data set; the horizontal axis is logarithmic."""
    values = [max(float(each[key]), 1e-6) for each in measured]
    low, high = log10(min(values)), log10(max(values))
    margin = max((high - low) * ROOM, 0.05)
    low, high = low - margin, high + margin
    bottom, top, ticks = difference_axis([each["difference"] for each in measured])

    def across_at(value: float) -> float:
        return (log10(max(value, 1e-6)) - low) / (high - low)

    def up(value: float) -> float:
        return (value - bottom) / (top - bottom)

    dots = [
        {
            "x": round(CURVE_UNITS * across_at(value)),
            "y": round(CURVE_UNITS * (1 - up(each["difference"]))),
            "verdict": each["verdict"].replace(" ", "-"),
            "title": f"{each['name']} on {names[each['data_set']]}: {each['difference']:+.3f}, {each['verdict']}",
        }
        for value, each in zip(values, measured, strict=True)
    ]
    places = {each["data_set"]: value for value, each in zip(values, measured, strict=True)}
    return {
        "title": title,
        "dots": dots,
        "zero": round(CURVE_UNITS * (1 - up(0.0))),
        "labels": numbered({at: across_at(value) for at, value in places.items()}),
        "ticks": [{"at": round(100 * up(tick), 2), "value": f"{tick:+g}" if tick else "0"} for tick in ticks],
        "ticks_across": [
            {"at": round(100 * across_at(tick), 2), "value": f"{100 * tick:g}%" if key == "share" else f"{tick:g}"}
            for tick in decades(10**low, 10**high)
        ],
    }


def numbered(places: Mapping[int, float]) -> list[dict[str, Any]]:
    """The number of each data set at its place; a number close to the one before it is a line lower."""
    labels: list[dict[str, Any]] = []
    for at, x in sorted(places.items(), key=lambda item: item[1]):
        close = labels and x - labels[-1]["across"] < 0.05
        labels.append(
            {"number": at + 1, "across": x, "x": round(CURVE_UNITS * x), "line": labels[-1]["line"] + 1 if close else 0}
        )
    return labels


def difference_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Both ends of an axis that holds the values and 0, and its round ticks.

    >>> difference_axis([-0.03, 0.11])
    (-0.05, 0.15, [-0.05, 0.0, 0.05, 0.1, 0.15])
    """
    low, high = min(0.0, *values), max(0.0, *values)
    step = nice_step(high - low, 4)
    first, last = int(low // step), -int(-high // step)
    last = max(last, first + 1)
    ticks = [round(step * at, 10) for at in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def decades(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: 1, 2 and 5 times powers of ten, or only the powers if there are many.

    >>> decades(12, 700)
    [20.0, 50.0, 100.0, 200.0, 500.0]
    """
    every = [factor * 10.0**power for power in range(-7, 8) for factor in (1, 2, 5)]
    inside = [round(value, 10) for value in every if low <= value <= high]
    return inside if len(inside) <= 7 else [value for value in inside if log10(value) == round(log10(value))]


OF_DATA_SET = ("tests", "address", "licence", "classes", "rarest", "share", "train", "test", "split", "crossing", "encoder")


def facts(across: Across) -> list[dict[str, Any]]:
    """A row for each data set: what it is, the baseline, what a threshold gains, and what is selected."""
    return [
        {
            "name": name,
            **{key: result[key] for key in OF_DATA_SET},
            "baseline": result["entries"][across.reference]["values"]["operating_point"]["rare_f1"],
            "threshold": result["threshold"]["rare_f1"],
            "chosen": result["chosen"],
        }
        for name, result in across.data_sets.items()
    ]


def published(across: Across) -> list[dict[str, Any]]:
    """The figures of others beside ours: the baseline's raw value on the unweighted test set, if the data set has a result."""
    rows = []
    for figure in across.published:
        result = across.data_sets.get(figure["data_set"])
        values = result["entries"][across.reference]["values"]["raw"] if result and figure["metric"] else {}
        rows.append({**figure, "ours": values.get(figure["metric"])})
    return rows


def page(across: Across | None, seconds: Sequence[Mapping[str, str]]) -> str:
    """The whole page; without results, how to get them."""
    script = trusted_source(SORT) + trusted_source(HERE / "across.js")
    content: dict[str, Any] = {"across": across}
    if across is not None:
        content |= {
            "sentences": sentences(across),
            "about": about(across),
            "views": views(across),
            "charts": against_rarity(across),
            "facts": facts(across),
            "published": published(across),
            "seconds": seconds_table(across, seconds),
            "confidence": f"{100 * across.confidence:g}%",
        }
    return (
        environment(HERE)
        .get_template("across.html")
        .render(
            **content,
            style=trusted_source(STYLE) + trusted_source(HERE / "across.css"),
            script=script,
            script_hash=script_hash(script),
        )
    )


def seconds_table(across: Across, seconds: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Training seconds by entry and data set, and the machines that measured them."""
    names = [name for name in across.data_sets if any(row["data_set"] == name for row in seconds)]
    measured = {(row["data_set"], row["entry"]): row["training_seconds"] for row in seconds}
    entries = [across.reference, *across.techniques]
    return {
        "data_sets": names,
        "rows": [{"name": entry, "cells": [measured.get((name, entry)) for name in names]} for entry in entries],
        "machines": sorted({row["machine"] for row in seconds}),
    }
