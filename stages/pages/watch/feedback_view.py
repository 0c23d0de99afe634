"""Precision, recall and F1 in production, from labelled feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.pages.drawing import CURVE_UNITS, Axis, shared_axis
from stages.pages.watch.timeline_view import times
from stages.pages.watch.windows import Window, feedback_of
from stages.pages.words import number, percent_or_dash

METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


def line(values: Sequence[float | None]) -> str:
    """An SVG path through values of [0, 1], broken at missing values.

    >>> line([0, None, 0.5])
    'M667 4000M3333 2000'
    """
    path, connected = "", False
    for index, value in enumerate(values):
        if value is not None:
            place = f"{CURVE_UNITS * (index + 0.5) / len(values):.0f} {CURVE_UNITS * (1 - value):.0f}"
            path += f"{'L' if connected else 'M'}{place}"
        connected = value is not None
    return path


def metric_axis(feedback: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Axis:
    """One axis for the metrics of all labels: round, from a margin below the lowest value up to 1."""
    by_label = [entry["classes"].get(label) or {} for entry in feedback for label in labels]
    values = [metrics[metric] for metrics in by_label for metric in METRICS if metrics.get(metric) is not None]
    return axis_from(min(values, default=0.0))


def axis_from(lowest: float) -> Axis:
    """A round axis from a margin below the lowest value up to 1."""
    ends = [{"value": end, "low": end, "high": end} for end in (max(0.0, lowest - 0.02), 1.0)]
    return shared_axis(ends, loss=True, limit=1)


def feedback_panel(labelled: Sequence[tuple[Window, Mapping[str, Any]]], label: str, axis: Axis) -> dict[str, Any]:
    """A label's metrics over the windows with feedback: series to draw, texts under the pointer and rows of a table."""
    rows = []
    for window, feedback in labelled:
        metrics = feedback["classes"].get(label) or {**dict.fromkeys(METRICS), "support": 0}
        share = percent_or_dash(feedback["share"].get(label))
        rows.append({"window": window["window"], "labelled": feedback["n"], "share": share, **metrics})
    series = [
        {
            "title": title,
            "path": line([None if row[metric] is None else axis.at(row[metric]) / 100 for row in rows]),
            "dots": [
                {"x": round(100 * (index + 0.5) / len(rows), 3), "y": round(100 - axis.at(row[metric]), 2)}
                for index, row in enumerate(rows)
                if row[metric] is not None
            ],
        }
        for metric, title in METRICS.items()
    ]
    tips = [
        f"{row['window']}: {label}, {row['support']:,} of {row['labelled']:,} labelled\n"
        + ", ".join(f"{title} {number(row[metric])}" for metric, title in METRICS.items())
        for row in rows
    ]
    return {"label": label, "series": series, "rows": rows[::-1], "tips": tips, "width": round(100 / len(rows), 3)}


def feedback_panels(windows: Sequence[Window], labels: Sequence[str]) -> dict[str, Any] | None:
    """Precision, recall and F1 of each label over the windows with labelled messages; None without any."""
    labelled = [(window, feedback) for window in windows if (feedback := feedback_of(window)) is not None]
    if not labelled:
        return None
    axis = metric_axis([feedback for _, feedback in labelled], labels)
    return {
        "panels": [feedback_panel(labelled, label, axis) for label in labels],
        "times": times([window for window, _ in labelled]),
        "count": len(labelled),
        "ticks": [{"at": axis.at(tick), "value": f"{tick:g}"} for tick in axis.ticks],
    }
