"""The HTML page `production/watch/index.html`: the time line of the watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.pages.drawing import CURVE_UNITS
from stages.pages.html import STYLE, environment, script_hash, trusted_source
from stages.pages.watch.counting_view import counting
from stages.pages.watch.feedback_view import METRICS, feedback_panels
from stages.pages.watch.investigate_view import unexplained
from stages.pages.watch.labelled_view import labelled_quality
from stages.pages.watch.quality_view import quality_panels
from stages.pages.watch.shadow_view import shadow_panel
from stages.pages.watch.timeline_view import share_scale, timeline, times
from stages.pages.watch.windows import Window, by_prior, estimate_of, label_link, link, share, share_by
from stages.pages.words import join_words, percent, percent_or_dash

HERE = Path(__file__).parent
DECISIONS = {
    "steady": "No action is needed.",
    "reprior": "The model is corrected to the estimated prior. Nothing is trained.",
    "retrain": "A challenger is trained on the new labels. It replaces the model only if it is not worse.",
    "below_floor": "The estimated quality is too low. Label messages for a retraining, or change the operating point.",
    "investigate": "A correction of the prior is not enough. Read messages of this window.",
}
NO_MESSAGES = "Find out why no messages arrived."
# More windows than this have smaller marks.
ROOMY, CROWDED = 60, 150
# Rows of the table that are visible at first.
NEWEST = 30
# Bounds the relative change of a class that no message was expected of.
SMALLEST_PRIOR = 1e-6


def most_changed(window: Window) -> str:
    """The class whose share changed most relative to its prior, among those whose interval excludes the prior, if any.

    Of two classes, the rarest.
    """
    estimate, prior = window["estimated_prior"], window["reference_prior"]
    order = by_prior(window["labels"], prior)
    if not estimate or len(order) == 2:
        return order[0]
    moved = [label for label in order if not window["low"][label] <= prior[label] <= window["high"][label]]
    return max(moved or order, key=lambda label: abs(estimate[label] - prior[label]) / max(prior[label], SMALLEST_PRIOR))


def answer(window: Window) -> dict[str, Any]:
    """The estimate and decision of the last window, for the class that changed most."""
    estimate, prior = window["estimated_prior"], window["reference_prior"]
    label = most_changed(window)
    decision = window["decision"]
    content = {"window": window["window"], "link": link(window), "messages": window["n"], "label": label}
    content |= {"decision": decision, "meaning": DECISIONS[decision], "reasons": window["reasons"]}
    content |= {metric: estimate_of(window, f"{label}.{metric}") for metric in ("precision", "recall")}
    if estimate is None:
        return {**content, "share": None, "meaning": NO_MESSAGES}
    ends = {key: percent(window[key][label]) for key in ("low", "high")}
    return {**content, **ends, "share": percent(estimate[label]), "prior": percent(prior[label]), "model": window["model"]}


def row(window: Window, shown: Sequence[str]) -> dict[str, Any]:
    """A window's row of the table, with its shares of the shown labels."""
    shares = []
    for label in shown:
        ends = [share(window, key, label) for key in ("low", "high")]
        shares.append(
            {
                "estimate": percent_or_dash(share(window, "estimated_prior", label)),
                "interval": "" if None in ends else " to ".join(map(percent_or_dash, ends)),
                "counts": [
                    percent_or_dash(share_by(window, method, label)) for method in ("classify_and_count", "emq", "pacc")
                ],
                "prior": percent_or_dash(share(window, "reference_prior", label)),
            }
        )
    keys = ("window", "n", "quarantined", "model", "decision", "reasons")
    return {**{key: window[key] for key in keys}, "link": link(window), "shares": shares}


def timeline_page(
    windows: Sequence[Window], texts: Mapping[str, str], confidence: float, floors: Mapping[str, float] | None = None
) -> str:
    """The page over all windows.

    Parameters
    ----------
    windows : at least one window as the watch writes it, in any order.
    texts : id -> text of messages to label; empty if the texts are hidden.
    confidence : of the windows' intervals.
    floors : metric, such as spam.precision -> its floor.
    """
    ordered = sorted(windows, key=lambda window: str(window["window"]))
    last = ordered[-1]
    shown = by_prior(last["labels"], last["reference_prior"])
    # Of two classes, one share implies the other.
    shown = shown if len(shown) > 2 else shown[:1]
    counts = Counter(window["decision"] for window in ordered)
    script = trusted_source(HERE / "watch.js")
    return (
        environment(HERE)
        .get_template("watch.html")
        .render(
            answer=answer(last),
            confidence=f"{100 * confidence:g}%",
            count=len(ordered),
            decisions=join_words([f"{counts[decision]} {decision}" for decision in DECISIONS if counts[decision]]),
            kinds=[decision for decision in DECISIONS if counts[decision]],
            meanings=DECISIONS,
            panels=[timeline(ordered, label) for label in shown],
            times=times(ordered),
            size="" if len(ordered) <= ROOMY else "dense" if len(ordered) <= CROWDED else "crowded",
            zoomable=len(ordered) > ROOMY // 2,
            counting=counting(last, share_scale(ordered, shown[0])) if last["rates"] else None,
            shown=shown,
            rows=[row(window, shown) for window in reversed(ordered)],
            newest=NEWEST,
            unexplained=unexplained(ordered, texts),
            labelled=labelled_quality(last),
            to_label=label_link(last),
            quality=quality_panels(ordered, shown, floors or {}),
            shadow=shadow_panel(ordered),
            feedback=feedback_panels(ordered, last["labels"]),
            metrics=METRICS,
            units=CURVE_UNITS,
            style=trusted_source(STYLE) + trusted_source(HERE / "watch.css"),
            script=script,
            script_hash=script_hash(script),
        )
    )
