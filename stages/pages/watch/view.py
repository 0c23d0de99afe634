"""What `production/watch/index.html` shows, worked out from the windows' results, and its rendering.

The template only puts into HTML what is computed here; whatever comes from data is escaped by Jinja2's autoescape.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from stages.pages.drawing import CURVE_UNITS, Axis, nice_step, points, shared_axis
from stages.pages.report.errors_view import SHOWN_CHARACTERS, shortened
from stages.pages.report.view import HERE as REPORT_PAGE
from stages.pages.report.view import digest, environment, percent, source, words
from stages.store.project import PROJECT

HERE = Path(__file__).parent
Window = Mapping[str, Any]

DECISIONS = {
    "steady": "Nothing is to do.",
    "reprior": "The same model is corrected to the estimated prior; nothing is trained.",
    "retrain": "A challenger is trained on the new labels and replaces the model only if it is surely not worse.",
    "investigate": "No correction answers this: somebody has to read messages of this window.",
}
METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
# More windows than these have smaller marks, and may be looked at closer.
ROOMY, CROWDED = 60, 150
# Rows of a table that are shown before one asks for the older ones, and windows whose findings are shown.
NEWEST, EXPLAINED = 30, 8
LABELLED_TICKS, LABELLED_CLOSER = 6, 4


def share(window: Window, key: str, label: str) -> float | None:
    """A label's value in one of a window's tables; None where the window has none."""
    found: float | None = (window[key] or {}).get(label)
    return found


def counted(window: Window, method: str, label: str) -> float | None:
    """A label's share by another method; None where the window has no messages."""
    found: float | None = ((window["methods"] or {}).get(method) or {}).get(label)
    return found


def labelled(window: Window) -> Mapping[str, Any] | None:
    """A window's labelled feedback, if it has any."""
    found = window["feedback"]
    return found if found and found["n"] else None


def true_share(window: Window, label: str) -> float | None:
    """A label's share where every message was labelled: a few labels are no sample of the window."""
    fed = labelled(window)
    return fed["share"].get(label) if fed and fed["n"] >= window["n"] else None


def link(window: Window) -> str:
    """Address of a window's own page, beside the time line."""
    return f"{quote(window['window'], safe='')}.html"


def dash(value: float | None) -> str:
    """A share in percent, or a dash where there is none."""
    return "–" if value is None else percent(value)


def order_of(labels: Sequence[str], prior: Mapping[str, float]) -> list[str]:
    """The labels, the rarest by a prior first."""
    return sorted(labels, key=lambda label: prior[label])


def answer(window: Window) -> dict[str, Any]:
    """What the last window says and what was decided, about the class whose share moved most."""
    estimate, prior = window["estimated_prior"], window["reference_prior"]
    order = order_of(window["labels"], prior)
    label = order[0]
    if estimate and len(order) > 2:
        label = max(order, key=lambda each: abs(estimate[each] - prior[each]))
    said = {"window": window["window"], "link": link(window), "messages": window["n"], "label": label}
    said |= {"decision": window["decision"], "meaning": DECISIONS[window["decision"]], "reasons": window["reasons"]}
    if estimate is None:
        return {**said, "share": None, "meaning": "Somebody has to find out why none came."}
    ends = {key: percent(window[key][label]) for key in ("low", "high")}
    return {**said, **ends, "share": percent(estimate[label]), "prior": percent(prior[label]), "model": window["model"]}


def share_scale(windows: Sequence[Window], label: str) -> Axis:
    """An axis from 0 that holds a label's shares in all windows; the ends of a few wide intervals may lie off it."""
    values = [share(window, key, label) for window in windows for key in ("estimated_prior", "reference_prior")]
    values += [counted(window, "classify_and_count", label) for window in windows]
    values += [true_share(window, label) for window in windows]
    ends = [each for each in (share(window, "high", label) for window in windows) if each is not None]
    top = max([each for each in values if each is not None] + ([float(np.quantile(ends, 0.95))] if ends else []) + [0.01])
    step = nice_step(top, 4)
    last = min(1.0, step * ceil(top / step - 1e-9))
    return Axis(low=0, high=last, ticks=tuple(round(float(tick), 10) for tick in np.arange(0, last + step / 2, step)))


def tip(window: Window, label: str) -> str:
    """What is said where one points at a window."""
    lines = [f"{window['window']}: {window['decision']}"]
    if window["estimated_prior"] is None:
        return f"{lines[0]}\nno messages"
    ends = f"{dash(share(window, 'low', label))} to {dash(share(window, 'high', label))}"
    lines += [f"{label} {dash(share(window, 'estimated_prior', label))} ({ends}) of {window['n']:,}"]
    lines += [f"deployed prior {dash(share(window, 'reference_prior', label))}, model {window['model']}"]
    lines += [f"classify and count {dash(counted(window, 'classify_and_count', label))}"]
    fed = labelled(window)
    return "\n".join(lines + ([f"labelled: {dash(fed['share'].get(label))} of {fed['n']:,}"] if fed else []))


def times(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Names of windows below the time line: those shown at first, and those shown closer."""
    count = len(windows)
    steps = {"far": ceil(count / LABELLED_TICKS), "near": LABELLED_CLOSER}
    ticks = []
    for at, window in enumerate(windows):
        # The newest has its name.
        kinds = [kind for kind, step in steps.items() if (count - 1 - at) % step == 0]
        if kinds:
            place = 100 * (at + 0.5) / count
            edge = "first" if at == 0 and count > LABELLED_TICKS else ""
            second = (count - 1 - at) // steps["far"] % 2 == 1 and "far" in kinds
            ticks.append({"at": round(place, 3), "name": window["window"], "kinds": kinds, "edge": edge, "second": second})
    return ticks


def timeline(windows: Sequence[Window], label: str) -> dict[str, Any]:
    """A label's share over the windows: intervals and the deployed prior as paths, marks by their places in percent."""
    axis, count = share_scale(windows, label), len(windows)
    width = CURVE_UNITS / count

    def down(value: float) -> float:
        return round(100 - axis.at(value), 2)

    intervals, prior, marks, naive, truth, areas = [], [], [], [], [], []
    previous = None
    for at, window in enumerate(windows):
        place = round(100 * (at + 0.5) / count, 3)
        estimate, deployed = (share(window, key, label) for key in ("estimated_prior", "reference_prior"))
        if estimate is not None:
            low, high = (down(window[key][label]) * CURVE_UNITS / 100 for key in ("low", "high"))
            intervals.append(f"M{(at + 0.5) * width:.0f} {low:.0f}V{high:.0f}")
        if deployed is not None:
            height = f"{down(deployed) * CURVE_UNITS / 100:.0f}"
            prior.append(
                f"V{height}H{(at + 1) * width:.0f}" if previous else f"M{at * width:.0f} {height}H{(at + 1) * width:.0f}"
            )
        previous = deployed is not None
        empty = estimate is None
        marks.append({"x": place, "y": 100 if estimate is None else down(estimate), "kind": window["decision"], "empty": empty})
        by_count, true = counted(window, "classify_and_count", label), true_share(window, label)
        if by_count is not None:
            naive.append({"x": place, "y": down(by_count)})
        if true is not None:
            truth.append({"x": place, "y": down(true)})
        areas.append({"x": round(100 * at / count, 3), "tip": tip(window, label), "link": link(window)})
    # What asks for something is drawn over what does not.
    marks.sort(key=lambda mark: mark["kind"] != "steady")
    return {
        "label": label,
        "ticks": [{"at": axis.at(tick), "value": f"{100 * tick:g}%"} for tick in axis.ticks],
        "intervals": "".join(intervals),
        "prior": "".join(prior),
        "marks": marks,
        "naive": naive,
        "truth": truth,
        "areas": areas,
        "width": round(100 / count, 3),
    }


def would_count(rates: Mapping[str, Mapping[str, float]], prior: Mapping[str, float], label: str) -> float:
    """Share of the messages that a model with such rates calls a label, under a prior."""
    return sum(prior[true] * rates[true][label] for true in rates)


def with_share(prior: Mapping[str, float], label: str, value: float) -> dict[str, float]:
    """A prior in which a label has another share; the others keep their proportions."""
    rest = sum(each for name, each in prior.items() if name != label)
    others = len(prior) - 1
    return {
        name: value if name == label else (1 - value) * (each / rest if rest > 0 else 1 / others)
        for name, each in prior.items()
    }


def counting(window: Window, axis: Axis) -> dict[str, Any]:
    """Why counting decided classes is wrong: by the rates of the window's model, for its rarest class and for all."""
    rates, prior = window["rates"], window["reference_prior"]
    order = order_of(window["labels"], prior)
    label = order[0]
    # The other share that is told of: the window's own if it is clearly another, else twice the deployed.
    estimate = share(window, "estimated_prior", label)
    differs = estimate is not None and abs(estimate - prior[label]) > prior[label] / 4
    other = estimate if estimate is not None and differs else min(0.9, 2 * prior[label])
    at_zero, at_top = (would_count(rates, with_share(prior, label, each), label) for each in (0.0, axis.high))
    # The chart's two axes are the same; a line that leaves it is cut by it.
    ends = [(0.0, at_zero), (axis.high, at_top)]
    at_prior = would_count(rates, prior, label)
    rows: list[dict[str, Any]] = [
        {"label": each, "true": prior[each], "counted": would_count(rates, prior, each)} for each in order
    ]
    for each in rows:
        # Adding 0 makes -0 a 0.
        each["points"] = round(100 * (each["counted"] - each["true"]), 1) + 0.0
    rows.sort(key=lambda row: -abs(row["points"]))
    return {
        "label": label,
        "model": window["model"],
        "found": percent(rates[label][label]),
        "taken": percent(at_zero),
        "rest": order[1] if len(order) == 2 else "all others",
        "prior": percent(prior[label]),
        "at_prior": percent(at_prior),
        "other": percent(other),
        "at_other": percent(would_count(rates, with_share(prior, label, other), label)),
        "same": percent(at_prior) == percent(prior[label]),
        "line": points([each / axis.high for each, _ in ends], [each / axis.high for _, each in ends]),
        "dot": {"x": axis.at(prior[label]), "y": 100 - axis.at(at_prior)},
        "ticks": [{"at": axis.at(tick), "value": f"{100 * tick:g}%"} for tick in axis.ticks],
        "rows": rows,
    }


def row(window: Window, shown: Sequence[str]) -> dict[str, Any]:
    """A window's row of the table: its shares for each of the labels."""
    shares = []
    for label in shown:
        ends = [share(window, key, label) for key in ("low", "high")]
        shares.append(
            {
                "estimate": dash(share(window, "estimated_prior", label)),
                "interval": "" if None in ends else f"{dash(ends[0])} to {dash(ends[1])}",
                "counts": [dash(counted(window, method, label)) for method in ("classify_and_count", "emq", "pacc")],
                "prior": dash(share(window, "reference_prior", label)),
            }
        )
    keys = ("window", "n", "quarantined", "model", "decision", "reasons")
    return {**{key: window[key] for key in keys}, "link": link(window), "shares": shares}


def finding(each: Mapping[str, Any]) -> dict[str, str]:
    """A finding that no shift of the prior explains, in words."""
    effect = (
        f"{each['effect']:.1%} of the messages have scores that no mixture of the classes gives"
        if each["name"] == "scores"
        else f"mean rank {each['effect']:+.2f} standard deviations from any mixture of the classes"
    )
    return {"name": each["name"].replace("_", " "), "effect": effect, "p": f"{each['p']:.2g}"}


def unexplained(windows: Sequence[Window], texts: Mapping[str, str]) -> dict[str, Any] | None:
    """The windows to investigate, newest first, with what does not fit, and the messages to label of the newest."""
    found = [window for window in reversed(windows) if window["decision"] == "investigate"]
    if not found:
        return None
    shown = [
        {
            "window": window["window"],
            "link": link(window),
            "reasons": window["reasons"],
            "findings": [finding(each) for each in window["findings"] or [] if each["rejects"]],
        }
        for window in found[:EXPLAINED]
    ]
    chosen = next((window for window in found if window.get("to_label")), None)
    identifiers = [each["id"] for each in chosen["to_label"]] if chosen else []
    messages = [
        {"id": each, "text": shortened(texts[each], SHOWN_CHARACTERS) if each in texts else None} for each in identifiers
    ]
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([("id", "label"), *((each, "") for each in identifiers)])
    return {
        "windows": shown,
        "older": len(found) - len(shown),
        "of": chosen["window"] if chosen else None,
        "messages": messages,
        "any_text": any(message["text"] is not None for message in messages),
        "sheet": sheet.getvalue(),
        "file": f"{PROJECT.labels / chosen['window']}.csv" if chosen else None,
        "labels": words([f"“{label}”" for label in chosen["labels"]]) if chosen else "",
    }


def line(values: Sequence[float | None]) -> str:
    """A path through those values of [0, 1] that there are, broken where one is missing."""
    path, joined = "", False
    for at, value in enumerate(values):
        if value is not None:
            place = f"{CURVE_UNITS * (at + 0.5) / len(values):.0f} {CURVE_UNITS * (1 - value):.0f}"
            path += f"{'L' if joined else 'M'}{place}"
        joined = value is not None
    return path


def feedback(windows: Sequence[Window], labels: Sequence[str]) -> dict[str, Any] | None:
    """Precision, recall and F1 of each label over the windows that have labelled messages; None if none has."""
    found = [(window, fed) for window in windows if (fed := labelled(window)) is not None]
    if not found:
        return None
    classes = [fed["classes"].get(label) or {} for _, fed in found for label in labels]
    least = min([each[metric] for each in classes for metric in METRICS if each.get(metric) is not None], default=0.0)
    # Round, with room below; the same for all labels.
    axis = shared_axis(
        [{"value": each, "low": each, "high": each} for each in (max(0.0, least - 0.02), 1.0)], loss=True, limit=1
    )
    panels = []
    for label in labels:
        rows = []
        for window, fed in found:
            scores = fed["classes"].get(label) or {**dict.fromkeys(METRICS), "support": 0}
            rows.append({"window": window["window"], "labelled": fed["n"], "share": dash(fed["share"].get(label)), **scores})
        series = [
            {
                "title": title,
                "path": line([None if each[metric] is None else axis.at(each[metric]) / 100 for each in rows]),
                "dots": [
                    {"x": round(100 * (at + 0.5) / len(rows), 3), "y": round(100 - axis.at(each[metric]), 2)}
                    for at, each in enumerate(rows)
                    if each[metric] is not None
                ],
            }
            for metric, title in METRICS.items()
        ]
        tips = [
            f"{each['window']}: {label}, {each['support']:,} of {each['labelled']:,} labelled\n"
            + ", ".join(f"{title} {number(each[metric])}" for metric, title in METRICS.items())
            for each in rows
        ]
        panels.append({"label": label, "series": series, "rows": rows[::-1], "tips": tips, "width": round(100 / len(rows), 3)})
    ticks = [{"at": axis.at(tick), "value": f"{tick:g}"} for tick in axis.ticks]
    return {"panels": panels, "times": times([window for window, _ in found]), "count": len(found), "ticks": ticks}


def number(value: float | None) -> str:
    """A metric, or a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def timeline_page(windows: Sequence[Window], texts: Mapping[str, str], confidence: float) -> str:
    """The page over all windows, at least one: what the watch wrote of each, in any order.

    texts : id -> text of messages to label, as many as may be shown.
    confidence : of the windows' intervals.
    """
    ordered = sorted(windows, key=lambda window: str(window["window"]))
    last = ordered[-1]
    *shown, _ = order_of(last["labels"], last["reference_prior"])
    decisions = Counter(window["decision"] for window in ordered)
    script = source(HERE / "watch.js")
    made = environment(HERE, REPORT_PAGE)
    made.filters["number"] = number
    return made.get_template("watch.html").render(
        answer=answer(last),
        confidence=f"{100 * confidence:g}%",
        count=len(ordered),
        decisions=words([f"{decisions[each]} {each}" for each in DECISIONS if decisions[each]]),
        kinds=[each for each in DECISIONS if decisions[each]],
        meanings=DECISIONS,
        panels=[timeline(ordered, label) for label in shown],
        times=times(ordered),
        size="" if len(ordered) <= ROOMY else "dense" if len(ordered) <= CROWDED else "crowded",
        closer=len(ordered) > ROOMY // 2,
        counting=counting(last, share_scale(ordered, shown[0])) if last["rates"] else None,
        shown=shown,
        rows=[row(window, shown) for window in reversed(ordered)],
        newest=NEWEST,
        unexplained=unexplained(ordered, texts),
        feedback=feedback(ordered, last["labels"]),
        metrics=METRICS,
        units=CURVE_UNITS,
        style=source(REPORT_PAGE / "report.css") + source(HERE / "watch.css"),
        script=script,
        script_digest=digest(script),
    )
