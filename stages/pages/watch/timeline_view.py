"""Class shares over the windows of the watch: the chart at the top of the time line."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from stages.pages.drawing import CURVE_UNITS, Axis, nice_step
from stages.pages.watch.windows import Window, feedback_of, link, share, share_by, true_share
from stages.pages.words import percent_or_dash

# Names of windows below the chart: about this many at first, and every fourth name when zoomed in.
N_TICKS, ZOOMED_STEP = 6, 4


def share_scale(windows: Sequence[Window], label: str) -> Axis:
    """An axis from 0 that holds a label's shares in all windows. The upper ends of a few wide intervals may lie off it."""
    values = [share(window, key, label) for window in windows for key in ("estimated_prior", "reference_prior")]
    values += [share_by(window, "classify_and_count", label) for window in windows]
    values += [true_share(window, label) for window in windows]
    ends = [end for end in (share(window, "high", label) for window in windows) if end is not None]
    present = [value for value in values if value is not None]
    top = max(present + ([float(np.quantile(ends, 0.95))] if ends else []) + [0.01])
    step = nice_step(top, 4)
    last = min(1.0, step * ceil(top / step - 1e-9))
    return Axis(low=0, high=last, ticks=tuple(round(float(tick), 10) for tick in np.arange(0, last + step / 2, step)))


def share_ticks(axis: Axis) -> list[dict[str, Any]]:
    """The ticks of an axis of shares, in percent."""
    return [{"at": axis.at(tick), "value": f"{100 * tick:g}%"} for tick in axis.ticks]


def tip(window: Window, label: str) -> str:
    """The text that a window shows under the pointer."""
    lines = [f"{window['window']}: {window['decision']}"]
    if window["estimated_prior"] is None:
        return f"{lines[0]}\nno messages"
    ends = " to ".join(percent_or_dash(share(window, key, label)) for key in ("low", "high"))
    lines += [f"{label} {percent_or_dash(share(window, 'estimated_prior', label))} ({ends}) of {window['n']:,} messages"]
    lines += [f"deployed prior {percent_or_dash(share(window, 'reference_prior', label))}, model {window['model']}"]
    lines += [f"classify and count {percent_or_dash(share_by(window, 'classify_and_count', label))}"]
    feedback = feedback_of(window)
    if feedback:
        lines += [f"labelled: {percent_or_dash(feedback['share'].get(label))} of {feedback['n']:,}"]
    return "\n".join(lines)


def times(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Names of windows below the time line: those shown at first, and those shown when zoomed in."""
    count = len(windows)
    steps = {"far": ceil(count / N_TICKS), "near": ZOOMED_STEP}
    ticks = []
    for index, window in enumerate(windows):
        # Count from the end, so that the newest window has its name.
        kinds = [kind for kind, step in steps.items() if (count - 1 - index) % step == 0]
        if kinds:
            place = 100 * (index + 0.5) / count
            edge = "first" if index == 0 and count > N_TICKS else ""
            second = (count - 1 - index) // steps["far"] % 2 == 1 and "far" in kinds
            ticks.append({"at": round(place, 3), "name": window["window"], "kinds": kinds, "edge": edge, "second": second})
    return ticks


def interval_bars(windows: Sequence[Window], label: str, axis: Axis) -> str:
    """The intervals of a label's share as one SVG path."""
    bars = []
    for index, window in enumerate(windows):
        ends = [share(window, key, label) for key in ("low", "high")]
        if window["estimated_prior"] is not None:
            low, high = (CURVE_UNITS * (1 - axis.at(end or 0.0) / 100) for end in ends)
            bars.append(f"M{CURVE_UNITS * (index + 0.5) / len(windows):.0f} {low:.0f}V{high:.0f}")
    return "".join(bars)


def prior_steps(windows: Sequence[Window], label: str, axis: Axis) -> str:
    """The deployed prior of a label over the windows as an SVG path of steps, broken where a window has none."""
    path, connected = "", False
    width = CURVE_UNITS / len(windows)
    for index, window in enumerate(windows):
        deployed = share(window, "reference_prior", label)
        if deployed is not None:
            height = f"{CURVE_UNITS * (1 - axis.at(deployed) / 100):.0f}"
            start = f"V{height}" if connected else f"M{index * width:.0f} {height}"
            path += f"{start}H{(index + 1) * width:.0f}"
        connected = deployed is not None
    return path


def timeline(windows: Sequence[Window], label: str) -> dict[str, Any]:
    """A label's share over the windows: intervals and the deployed prior as paths, marks by their places in percent."""
    axis, count = share_scale(windows, label), len(windows)

    def down(value: float) -> float:
        return round(100 - axis.at(value), 2)

    marks, naive, truth, areas = [], [], [], []
    for index, window in enumerate(windows):
        place = round(100 * (index + 0.5) / count, 3)
        estimate = share(window, "estimated_prior", label)
        empty = estimate is None
        marks.append({"x": place, "y": 100 if estimate is None else down(estimate), "kind": window["decision"], "empty": empty})
        naive_share, labelled_share = share_by(window, "classify_and_count", label), true_share(window, label)
        if naive_share is not None:
            naive.append({"x": place, "y": down(naive_share)})
        if labelled_share is not None:
            truth.append({"x": place, "y": down(labelled_share)})
        areas.append({"x": round(100 * index / count, 3), "tip": tip(window, label), "link": link(window)})
    # Marks that need attention cover the others.
    marks.sort(key=lambda mark: mark["kind"] != "steady")
    return {
        "label": label,
        "ticks": share_ticks(axis),
        "intervals": interval_bars(windows, label, axis),
        "prior": prior_steps(windows, label, axis),
        "marks": marks,
        "naive": naive,
        "truth": truth,
        "areas": areas,
        "width": round(100 / count, 3),
    }
