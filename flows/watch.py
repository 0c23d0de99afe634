"""Watch a scored window: estimate its class prior, decide, notify, and correct the deployed model if that is the decision.

New labels are read first. Every decision except *steady* and *below_floor* emits `class-prior.shifted`; the deployment of
retrain listens for *retrain*. Metrics below `production.watch.floor` emit `performance.below_floor`, whatever the decision. A
window without scores emits `window.missing`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid5

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from ballast.cli import parser, run
from ballast.io.printable import LONGEST_TITLE, one_line
from flows import artifacts
from flows.alarms import NAMESPACE, notify
from flows.commands import run_command, stopping_commands
from flows.deployed import deployed_manifest
from flows.failures import StageFailed, readable_errors
from flows.promote import promote
from flows.settings import window_name
from flows.state import read_state

SCORED, WATCH = Path("production/scored"), Path("production/watch")
PRIOR = ("reference_prior", "estimated_prior", "low", "high")
PAYLOAD = ("window", "n", "model", "labels", *PRIOR, "estimated_performance", "decision", "reasons")
# Decisions without the event of a shift.
NO_SHIFT = ("steady", "below_floor")
PER_CLASS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "share": "share assigned",
    "wrongly_assigned_per_10000": "wrongly assigned per 10,000",
}


def run_name() -> str:
    """The name of a run, from its window."""
    return one_line(f"watch: {flow_run.parameters.get('window') or 'the window of its time'}", LONGEST_TITLE)


@flow(name="watch", flow_run_name=run_name)
def watch(window: str | None = None, occasion: str = "") -> str:
    """Watch a window, by default that of the run's scheduled start, and return the decision.

    occasion : distinguishes events; equal decisions for the same window and occasion are the same event.

    Raises StageFailed, after `window.missing`, for a window that was not scored.
    """
    name = window or window_name(flow_run.scheduled_start_time or datetime.now(UTC))
    logger = get_run_logger()
    with stopping_commands():
        try:
            run_command("feedback", ["python", "-m", "stages.production.feedback"], logger.info)
        except StageFailed as failure:
            # Invalid labels must not stop the watch.
            logger.error("%s; watching the window with the earlier labels", failure.headline)
            notify("labels.rejected", f"ballast.window.{name}", {"window": name, "reason": failure.headline})
        if not (SCORED / f"{name}.parquet").exists():
            # The stage then fails and says how to score the window.
            notify("window.missing", f"ballast.window.{name}", {"window": name}, labels={"ballast.window": name})
        run_command("watch", ["python", "-m", "stages.production.watch", "--window", name], logger.info)
    result = read_state(WATCH / f"{name}.json")
    artifacts.markdown(decision_markdown(result), key="class-prior", description=f"{name}: {result['decision']}")
    create_link_artifact((WATCH / f"{name}.html").resolve().as_uri(), link_text=f"drift of {name}", key="drift")
    create_link_artifact((WATCH / "index.html").resolve().as_uri(), link_text="all windows", key="time-line")
    decision = str(result["decision"])
    labels = {"ballast.window": name, "ballast.decision": decision}
    payload = {key: result[key] for key in PAYLOAD}
    for event, about in events_of(result).items():
        key = uuid5(NAMESPACE, f"{name}/{result['model']}/{about}/{occasion}")
        notify(event, f"ballast.window.{name}", payload, labels=labels, id=key)
    if decision == "reprior":
        correct_deployed(name, result["model"])
    return decision


def events_of(result: dict[str, Any]) -> dict[str, str]:
    """The events that a watched window emits, each with what its id is made of besides the window."""
    decision, events = str(result["decision"]), {}
    if decision not in NO_SHIFT:
        events["class-prior.shifted"] = decision
    if result["estimated_performance"]["below_floor"]:
        events["performance.below_floor"] = "below_floor"
    return events


def correct_deployed(window: str, model: str) -> None:
    """Correct the deployed model to a window's prior, unless another version was deployed after the window was scored."""
    manifest = deployed_manifest()
    if manifest["version"] == model or manifest["window"] == window:
        promote(reprior=window, base=manifest["version"])
    else:
        get_run_logger().warning(
            "%s was scored by %s, but now %s is deployed; nothing to correct", window, model, manifest["version"]
        )


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", "\\|")


def decision_markdown(result: dict[str, Any]) -> str:
    """The decision, its reasons, and tables of the estimates, as Markdown."""
    lines = [f"**{result['decision']}**: {'; '.join(result['reasons'])}", ""]
    if result["estimated_prior"] is not None:
        lines += ["| class | deployed prior | estimate (interval) | EMQ | classify and count |", "|---|---|---|---|---|"]
        lines += [
            f"| {cell(label)} | {result['reference_prior'][label]:.3f} |"
            f" {result['estimated_prior'][label]:.3f} ({result['low'][label]:.3f} to {result['high'][label]:.3f}) |"
            f" {result['methods']['emq'][label]:.3f} | {result['methods']['classify_and_count'][label]:.3f} |"
            for label in result["labels"]
        ]
    shadow = ["", f"Shadow: {result['shadow']['summary']}"] if result.get("shadow") else []
    return "\n".join([*lines, "", *performance_lines(result), *shadow])


def performance_lines(result: dict[str, Any]) -> list[str]:
    """The estimated performance of a window as lines of Markdown, beside what its labelled messages show."""
    performance, feedback = result["estimated_performance"], result["feedback"] or {}
    if performance["metrics"] is None:
        return [f"The estimated performance is withheld: {performance['withheld']}"]
    shown = f"; in brackets: {feedback['n']:,} labelled messages" if feedback else ""
    lines = [f"Performance, estimated without labels (interval{shown})", ""]
    lines += [f"| class | {' | '.join(PER_CLASS.values())} |", "|---" * (len(PER_CLASS) + 1) + "|"]
    for label in result["labels"]:
        measured = feedback.get("classes", {}).get(label, {})
        cells = [estimate_cell(performance["metrics"][f"{label}.{metric}"], measured.get(metric)) for metric in PER_CLASS]
        lines.append(f"| {cell(label)} | {' | '.join(cells)} |")
    cost = performance["metrics"].get("cost")
    lines += [] if cost is None else ["", f"Expected cost of a message: {estimate_cell(cost, None)}"]
    labelled = result.get("labelled_performance") or {"disagrees": []}
    for name in labelled["disagrees"]:
        lines += ["", f"Labels of the queue contradict {cell(name)}: {estimate_cell(labelled['metrics'][name], None)}"]
    return lines


def estimate_cell(estimate: dict[str, float], measured: float | None) -> str:
    """An estimate with its interval and, in brackets, the measured value.

    >>> estimate_cell({"value": 0.9, "low": 0.85, "high": 0.94}, 0.91)
    '0.900 (0.850 to 0.940) [0.910]'
    >>> estimate_cell({"value": 52.31, "low": 20.0, "high": 81.2}, None)
    '52.3 (20.0 to 81.2)'
    """
    digits = 3 if estimate["high"] <= 1 else 1
    value, low, high = (f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})" + ("" if measured is None else f" [{measured:.{digits}f}]")


def main(window: str | None) -> None:
    with readable_errors():
        watch(window)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", metavar="NAME", help="a scored window (default: the current one)")
    run(main, arguments.parse_args())
