"""Studies in the report: each question with its answer in words, its curves and its table; or the command that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

from stages.pages.drawing import corner_ticks, points, shared_axis
from stages.store.studies import Result, Row

SHOWN = (("recall", "Recall"), ("precision", "Precision"), ("f1", "F1"))
FAMILIES = ("corrected", "raw")
LEARNING_CURVE = "ingest.train_share"
# Room beside the outermost values, and between whiskers of the same value, in shares of the width.
MARGIN, APART = 0.06, 0.012


def name_of(row: Row, result: Result) -> str:
    """What tells a row from the others: its variant, its technique, or both."""
    if len({each.technique for each in result.rows}) == 1:
        return row.variant
    return row.technique if len({each.variant for each in result.rows}) == 1 else f"{row.variant} · {row.technique}"


def in_words(found: Mapping[str, Any]) -> str:
    """A difference with its interval and verdict."""
    return f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}: {found['verdict']})"


def extremes(result: Result) -> list[str]:
    """For each technique what its farthest variant on the axis changes in the recall of the rarest class, raw and corrected."""
    said = []
    techniques = dict.fromkeys(row.technique for row in result.rows)
    for technique in techniques if result.axis else []:
        rows = [row for row in result.rows if row.technique == technique and row.at is not None]
        start = next((row for row in rows if row.compared_with is None), None)
        others = [row for row in rows if row.differences is not None]
        if start is not None and others:
            far = max(others, key=lambda row: abs((row.at or 0) - (start.at or 0)))
            metric = f"{result.rarest}.recall"
            who = f"the {result.rarest} recall of {technique}"
            changes = [f"{family} by {in_words(far.differences[family][metric])}" for family in ("raw", "corrected")]  # type: ignore[index]
            said.append(f"From {start.variant} to {far.variant} {who} changes {' and '.join(changes)}.")
    return said


def best_technique(board: Mapping[str, Any], metric: str) -> tuple[str, Mapping[str, Any]] | None:
    """The technique of the leaderboard that is shown to be better than the reference, or else might be, by most."""
    compared = {
        name: each["comparison"]["corrected"]["metrics"][metric]
        for name, each in board["techniques"].items()
        if each["comparison"]
    }
    if not compared:
        return None
    best = max(compared, key=lambda name: (compared[name]["verdict"] == "better", compared[name]["difference"]))
    return best, compared[best]


def data_or_technique(result: Result, board: Mapping[str, Any]) -> list[str]:
    """Whether the last part of the data helped more than the best technique of the leaderboard, in words."""
    metric = f"{result.rarest}.f1"
    rows = [row for row in result.rows if row.technique == board["reference"] and row.at is not None]
    best = best_technique(board, metric)
    if result.axis is None or result.axis.key != LEARNING_CURVE or len(rows) < 2 or best is None:
        return []
    less, most = sorted(rows, key=lambda row: row.at or 0)[-2:]
    if most.differences is not None or less.differences is None:
        return []
    # The reference has all data, so that what less of it loses is what the rest of it gained.
    lost = less.differences["corrected"][metric]
    value, low, high = (-float(lost[key]) for key in ("difference", "high", "low"))
    name, gain = best
    helps = {"data": lost["verdict"] == "worse", name: gain["verdict"] == "better"}
    if helps["data"] and (not helps[name] or value > gain["difference"]):
        answer = "The last part of the data helped more than any technique."
    elif helps[name]:
        answer = f"{name} helps more than the last part of the data did."
    elif "inconclusive" in f"{lost['verdict']} {gain['verdict']}":
        answer = "So few trainings tell neither."
    else:
        answer = "Neither is shown to help."
    return [
        f"{answer} With all the data instead of {less.at:.0%} of it, {board['reference']} gains {value:+.3f} of"
        f" {result.rarest} F1 ({low:+.3f} to {high:+.3f}); the best technique of the leaderboard, {name}, differs from it by"
        f" {gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})."
    ]


def charts(result: Result) -> list[dict[str, Any]]:
    """Recall, precision and F1 of the rarest class over the axis: a line with whiskers for each technique and family."""
    rows = [row for row in result.rows if row.at is not None]
    values = sorted({row.at for row in rows if row.at is not None})
    if len(values) < 2:
        return []
    techniques = list(dict.fromkeys(row.technique for row in rows))

    def across(value: float) -> float:
        return MARGIN + (1 - 2 * MARGIN) * (value - values[0]) / (values[-1] - values[0])

    made = []
    for metric, title in SHOWN:
        key = f"{result.rarest}.{metric}"
        lowest = min(row.metrics[family][key]["low"] for row in rows for family in FAMILIES)
        corner = min(0.9, max(0.0, floor(10 * lowest) / 10))
        lines: list[dict[str, Any]] = []
        for at, technique in enumerate(techniques):
            for family in FAMILIES:
                own = sorted((row for row in rows if row.technique == technique), key=lambda row: row.at or 0)
                shift = APART * (len(lines) - len(techniques) + 0.5)
                xs = [across(row.at or 0) + shift for row in own]
                estimates = [row.metrics[family][key] for row in own]

                def up(value: float, corner: float = corner) -> float:
                    return (value - corner) / (1 - corner)

                lines.append(
                    {
                        "at": at,
                        "family": family,
                        "title": f"{technique}, {family}",
                        "path": points(xs, [up(each["value"]) for each in estimates]),
                        "whiskers": "".join(
                            points([x, x], [up(each["low"]), up(each["high"])]) for x, each in zip(xs, estimates, strict=True)
                        ),
                    }
                )
        ticks_across = [{"at": round(100 * across(value), 2), "value": f"{value:g}"} for value in values]
        made.append({"title": title, "ticks": corner_ticks(corner), "across": ticks_across, "lines": lines})
    return made


def table(result: Result) -> dict[str, Any]:
    """Rows of each family: metrics of the rarest class with intervals, and the difference from the reference."""
    axes = {
        metric: shared_axis(
            [row.metrics[family][f"{result.rarest}.{metric}"] for row in result.rows for family in FAMILIES],
            loss=False,
            limit=1,
        )
        for metric, _ in SHOWN
    }

    def cells(row: Row, family: str) -> list[dict[str, Any]]:
        made = []
        for metric, title in SHOWN:
            estimate = row.metrics[family][f"{result.rarest}.{metric}"]
            difference = row.differences[family][f"{result.rarest}.{metric}"] if row.differences else None
            made.append({"title": title, **estimate, **axes[metric].interval(estimate), "difference": difference})
        return made

    return {
        "columns": [title for _, title in SHOWN],
        "bodies": [
            {
                "family": family,
                "rows": [
                    {
                        "name": name_of(row, result),
                        "compared_with": row.compared_with,
                        "rare": row.training[result.rarest],
                        "others": sum(row.training.values()) - row.training[result.rarest],
                        "cells": cells(row, family),
                    }
                    for row in result.rows
                ],
            }
            for family in FAMILIES
        ],
    }


def studies(results: Mapping[str, Result | None], board: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the page shows of each study, those that have run first."""
    shown = [
        {
            "name": name,
            "question": result.question,
            "rarest": result.rarest,
            "support": result.support,
            "trainings": len(result.rows[0].seeds),
            "confidence": f"{100 * result.confidence:g}%",
            "said": [*data_or_technique(result, board), *extremes(result)],
            "claims": result.claims,
            "axis": result.axis.title if result.axis else "",
            "charts": charts(result),
            "techniques": list(dict.fromkeys(row.technique for row in result.rows)),
            "table": table(result),
        }
        for name, result in results.items()
        if result is not None
    ]
    return [*shown, *({"name": name, "question": None} for name, result in results.items() if result is None)]
