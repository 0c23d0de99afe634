"""Precision and recall over the windows as estimated without labels, beside what labels show and the floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.pages.drawing import CURVE_UNITS, Axis
from stages.pages.watch.feedback_view import axis_from
from stages.pages.watch.windows import Window, estimate_of, feedback_of, link, withheld_because
from stages.pages.words import number, percent_or_dash, with_interval

# Metrics in the chart, with their places within the width of a window, so that intervals do not cover each other.
DRAWN = {"precision": ("Precision", 0.36), "recall": ("Recall", 0.64)}
# Rows of the tables, newest first. Every window's own file has its numbers.
NEWEST = 30
LISTED = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


def measured(window: Window, label: str, metric: str) -> float | None:
    """A metric of a label on the labelled messages of a window.

    None if half of them or more may be messages to label: those are the difficult ones, and count with weights elsewhere.
    """
    feedback = feedback_of(window)
    if feedback is None or feedback["n"] <= 2 * len(window["to_label"]):
        return None
    value: float | None = (feedback["classes"].get(label) or {}).get(metric)
    return value


def quality_axis(windows: Sequence[Window], labels: Sequence[str], floors: Mapping[str, float]) -> Axis:
    """One axis for all labels, from below the lowest value, or the typical lower end of an interval, up to 1."""
    keys = [(window, label, metric) for window in windows for label in labels for metric in DRAWN]
    estimates = [estimate for window, label, metric in keys if (estimate := estimate_of(window, f"{label}.{metric}"))]
    values = [estimate["value"] for estimate in estimates]
    values += [value for key in keys if (value := measured(*key)) is not None]
    values += [floors[f"{label}.{metric}"] for label in labels for metric in DRAWN if f"{label}.{metric}" in floors]
    # A few wide intervals may leave the chart.
    lows = sorted(estimate["low"] for estimate in estimates)
    return axis_from(min([*values, *lows[len(lows) // 10 :][:1]], default=0.0))


def tip(window: Window, label: str) -> str:
    """The text that a window shows under the pointer."""
    lines = [f"{window['window']}: {label}"]
    if reason := withheld_because(window):
        return f"{lines[0]}\nno estimate: {reason}"
    for metric, (title, _) in DRAWN.items():
        labels = measured(window, label, metric)
        beside = "" if labels is None else f", labels show {number(labels)}"
        lines.append(f"{title} {with_interval(estimate_of(window, f'{label}.{metric}'))}{beside}")
    return "\n".join(lines)


def row(window: Window, label: str) -> dict[str, Any]:
    """A window's row in the table of a label."""
    estimates = {metric: estimate_of(window, f"{label}.{metric}") for metric in LISTED}
    share, wrong = (estimate_of(window, f"{label}.{metric}") for metric in ("share", "wrongly_assigned_per_10000"))
    return {
        "window": window["window"],
        "link": link(window),
        "withheld": withheld_because(window),
        "metrics": [
            {"estimate": with_interval(estimate), "measured": measured(window, label, metric)}
            for metric, estimate in estimates.items()
        ],
        "share": percent_or_dash(share["value"] if share else None),
        "wrong": "{value:,.1f} ({low:,.1f} to {high:,.1f})".format(**wrong) if wrong else "",
    }


def series(windows: Sequence[Window], label: str, metric: str, axis: Axis, floor: float | None) -> dict[str, Any]:
    """A metric's estimates, intervals, measured values and floor as marks and paths."""
    title, offset = DRAWN[metric]

    def down(value: float) -> float:
        return round(100 - axis.at(value), 1)

    bars, dots, truth = "", [], []
    for index, window in enumerate(windows):
        place = round(100 * (index + offset) / len(windows), 2)
        if (estimate := estimate_of(window, f"{label}.{metric}")) is not None:
            low, high = (CURVE_UNITS / 100 * down(estimate[end]) for end in ("low", "high"))
            bars += f"M{CURVE_UNITS / 100 * place:.0f} {low:.0f}V{high:.0f}"
            dots.append({"x": place, "y": down(estimate["value"])})
        if (value := measured(window, label, metric)) is not None:
            truth.append({"x": place, "y": down(value)})
    line = "" if floor is None else f"M0 {CURVE_UNITS / 100 * down(floor):.0f}H{CURVE_UNITS}"
    return {"title": title, "bars": bars, "dots": dots, "truth": truth, "floor": line}


def quality_panels(windows: Sequence[Window], labels: Sequence[str], floors: Mapping[str, float]) -> dict[str, Any] | None:
    """The estimated quality of each label over the windows; None if no window has an estimate."""
    estimated = [window for window in windows if any(estimate_of(window, f"{label}.recall") for label in labels)]
    if not estimated:
        return None
    axis = quality_axis(estimated, labels, floors)
    panels: list[dict[str, Any]] = [
        {
            "label": label,
            "series": [series(windows, label, metric, axis, floors.get(f"{label}.{metric}")) for metric in DRAWN],
            "areas": [
                {"x": round(100 * index / len(windows), 3), "tip": tip(window, label), "link": link(window)}
                for index, window in enumerate(windows)
            ],
            "rows": [row(window, label) for window in windows[: -NEWEST - 1 : -1]],
        }
        for label in labels
    ]
    return {
        "panels": panels,
        "titles": [title for title, _ in DRAWN.values()],
        "listed": list(LISTED.values()),
        "width": round(100 / len(windows), 3),
        "ticks": [{"at": axis.at(tick), "value": f"{tick:g}"} for tick in axis.ticks],
        "floors": any(f"{label}.{metric}" in floors for label in labels for metric in DRAWN),
        "truth": any(of_metric["truth"] for panel in panels for of_metric in panel["series"]),
    }
