"""Studies in the report: each question with its answer in words, its curves and its table; or the command that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor
from typing import Any

from stages.pages.drawing import corner_ticks, points, shared_axis
from stages.pages.report.results import FAMILIES
from stages.store.studies import Result, Row

SHOWN = (("recall", "Recall"), ("precision", "Precision"), ("f1", "F1"))
LEARNING_CURVE = "ingest.train_share"
# Margin beside the outermost values, and distance of whiskers at the same value, as shares of the width.
MARGIN, APART = 0.06, 0.012


def name_of(row: Row, result: Result) -> str:
    """What distinguishes a row from the others: its variant, its technique, or both."""
    if len({other.technique for other in result.rows}) == 1:
        return row.variant
    return row.technique if len({other.variant for other in result.rows}) == 1 else f"{row.variant} · {row.technique}"


def change_sentence(family: str, change: Mapping[str, Any]) -> str:
    """A change of a metric with its interval and verdict."""
    interval = f"{change['low']:+.3f} to {change['high']:+.3f}"
    return f"by {change['difference']:+.3f} {family} ({interval}, {change['verdict']})"


def extremes(result: Result) -> list[str]:
    """For each technique, how the recall of the rarest class changes up to the farthest variant, raw and corrected."""
    sentences = []
    techniques = dict.fromkeys(row.technique for row in result.rows)
    for technique in techniques if result.axis else []:
        rows = [row for row in result.rows if row.technique == technique and row.at is not None]
        start = next((row for row in rows if row.compared_with is None), None)
        others = [row for row in rows if row.differences is not None]
        if start is not None and others:
            farthest = max(others, key=lambda row: abs((row.at or 0) - (start.at or 0)))
            metric = f"{result.rarest}.recall"
            changes = [change_sentence(family, farthest.differences[family][metric]) for family in ("raw", "corrected")]  # type: ignore[index]
            subject = f"the {result.rarest} recall of {technique}"
            sentences.append(f"From {start.variant} to {farthest.variant}, {subject} changes {' and '.join(changes)}.")
    return sentences


def best_technique(board: Mapping[str, Any], metric: str) -> tuple[str, Mapping[str, Any]] | None:
    """The technique with the largest gain over the reference, and its comparison; a significant gain comes first."""
    compared = {
        name: technique["comparison"]["corrected"]["metrics"][metric]
        for name, technique in board["techniques"].items()
        if technique["comparison"]
    }
    if not compared:
        return None
    best = max(compared, key=lambda name: (compared[name]["verdict"] == "better", compared[name]["difference"]))
    return best, compared[best]


def data_or_technique(result: Result, board: Mapping[str, Any]) -> list[str]:
    """Whether the last part of the data helps more than the best technique of the leaderboard, in words."""
    metric = f"{result.rarest}.f1"
    rows = [row for row in result.rows if row.technique == board["reference"] and row.at is not None]
    best = best_technique(board, metric)
    if result.axis is None or result.axis.key != LEARNING_CURVE or len(rows) < 2 or best is None:
        return []
    less, most = sorted(rows, key=lambda row: row.at or 0)[-2:]
    if most.differences is not None or less.differences is None:
        return []
    # The reference has all data, so the loss with less data is the gain from the rest.
    loss = less.differences["corrected"][metric]
    value, low, high = (-float(loss[key]) for key in ("difference", "high", "low"))
    name, gain = best
    data_helps, technique_helps = loss["verdict"] == "worse", gain["verdict"] == "better"
    if data_helps and (not technique_helps or value > gain["difference"]):
        answer = "More data helps more than any technique."
    elif technique_helps:
        answer = f"{name} helps more than more data."
    else:
        answer = "Neither more data nor a technique helps significantly."
    return [
        f"{answer} From {less.at:.0%} to all of the training data, the {result.rarest} F1 of {board['reference']} changes by"
        f" {value:+.3f} ({low:+.3f} to {high:+.3f}). The {result.rarest} F1 of {name}, the best technique of the leaderboard,"
        f" differs from that of {board['reference']} by {gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})."
    ]


def charts(result: Result) -> list[dict[str, Any]]:
    """Recall, precision and F1 of the rarest class over the axis: a line with whiskers for each technique and family."""
    values = sorted({row.at for row in result.rows if row.at is not None})
    if len(values) < 2:
        return []

    def across(value: float) -> float:
        return MARGIN + (1 - 2 * MARGIN) * (value - values[0]) / (values[-1] - values[0])

    ticks_across = [{"at": round(100 * across(value), 2), "value": f"{value:g}"} for value in values]
    figures = []
    for metric, title in SHOWN:
        corner, lines = chart_lines(result, f"{result.rarest}.{metric}", across)
        figures.append({"title": title, "ticks": corner_ticks(corner), "across": ticks_across, "lines": lines})
    return figures


def chart_lines(result: Result, key: str, across: Callable[[float], float]) -> tuple[float, list[dict[str, Any]]]:
    """The lower end of a metric's scale, and a line for each technique and family; `across` places a value of the axis."""
    rows = [row for row in result.rows if row.at is not None]
    techniques = list(dict.fromkeys(row.technique for row in rows))
    lowest = min(row.metrics[family][key]["low"] for row in rows for family in FAMILIES)
    corner = min(0.9, max(0.0, floor(10 * lowest) / 10))

    def up(value: float) -> float:
        return (value - corner) / (1 - corner)

    lines: list[dict[str, Any]] = []
    for at, technique in enumerate(techniques):
        own = sorted((row for row in rows if row.technique == technique), key=lambda row: row.at or 0)
        for family in FAMILIES:
            # Whiskers at the same value stand side by side.
            shift = APART * (len(lines) - len(techniques) + 0.5)
            xs = [across(row.at or 0) + shift for row in own]
            estimates = [row.metrics[family][key] for row in own]
            whiskers = [
                points([x, x], [up(estimate["low"]), up(estimate["high"])]) for x, estimate in zip(xs, estimates, strict=True)
            ]
            line = {"at": at, "family": family, "title": f"{technique}, {family}", "whiskers": "".join(whiskers)}
            lines.append({**line, "path": points(xs, [up(estimate["value"]) for estimate in estimates])})
    return corner, lines


def learning_rates(result: Result) -> str:
    """The learning rate of each variant, as a sentence; empty if all have the same, or if the result does not say."""
    rates = {row.variant: row.encoder["learning_rate"] for row in result.rows if row.encoder is not None}
    if len(set(rates.values())) < 2:
        return ""
    return "Learning rates: " + ", ".join(f"{variant} {rate:g}" for variant, rate in rates.items()) + "."


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
        row_cells = []
        for metric, title in SHOWN:
            estimate = row.metrics[family][f"{result.rarest}.{metric}"]
            difference = row.differences[family][f"{result.rarest}.{metric}"] if row.differences else None
            row_cells.append({"title": title, **estimate, **axes[metric].interval(estimate), "difference": difference})
        return row_cells

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
    """What the page shows of each study; studies with results come first."""
    shown = [
        {
            "name": name,
            "question": result.question,
            "rarest": result.rarest,
            "support": result.support,
            "trainings": result.trainings,
            "confidence": f"{100 * result.confidence:g}%",
            "sentences": [*data_or_technique(result, board), *extremes(result)],
            "claims": result.claims,
            "axis": result.axis.title if result.axis else "",
            "charts": charts(result),
            "techniques": list(dict.fromkeys(row.technique for row in result.rows)),
            "table": table(result),
            "learning_rates": learning_rates(result),
        }
        for name, result in results.items()
        if result is not None
    ]
    return [*shown, *({"name": name, "question": None} for name, result in results.items() if result is None)]
