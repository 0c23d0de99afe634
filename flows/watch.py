"""Watch a scored window: estimate its class prior, decide, tell, and correct the deployed model where that is the answer.

Labels that came since are taken in first. Every decision but *steady* emits `class-prior.shifted`; the deployment of retrain
listens for those that say *retrain*. A window that nobody scored emits `window.missing`.
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
from flows.alarms import NAMESPACE, tell
from flows.commands import run_command, stopping_commands
from flows.failures import StageFailed, readable_errors
from flows.promote import deployed, promote
from flows.settings import window_name
from flows.state import read_state

SCORED, WATCH = Path("production/scored"), Path("production/watch")


def run_name() -> str:
    """The name of a run: its window."""
    return one_line(f"watch: {flow_run.parameters.get('window') or 'the window of its time'}", LONGEST_TITLE)


@flow(name="watch", flow_run_name=run_name)
def watch(window: str | None = None, occasion: str = "") -> str:
    """Watch a window, by default that of the run's scheduled start, and return the decision.

    The same decision of the same window is the same event, unless the occasion is another.

    Raises StageFailed, after `window.missing`, for a window that was not scored.
    """
    name = window or window_name(flow_run.scheduled_start_time or datetime.now(UTC))
    logger = get_run_logger()
    with stopping_commands():
        try:
            run_command("feedback", ["python", "-m", "stages.production.feedback"], logger.info)
        except StageFailed as failure:
            # A mistake in somebody's labels must not stop the watch.
            logger.error("%s; the window is watched with the labels so far", failure.headline)
            tell("labels.rejected", f"ballast.window.{name}", {"window": name, "reason": failure.headline})
        try:
            run_command("watch", ["python", "-m", "stages.production.watch", "--window", name], logger.info)
        except StageFailed:
            if not (SCORED / f"{name}.parquet").exists():
                tell("window.missing", f"ballast.window.{name}", {"window": name}, labels={"ballast.window": name})
            raise
    result = read_state(WATCH / f"{name}.json")
    artifacts.markdown(decision_markdown(result), key="class-prior", description=f"{name}: {result['decision']}")
    create_link_artifact((WATCH / f"{name}.html").resolve().as_uri(), link_text=f"drift of {name}", key="drift")
    create_link_artifact((WATCH / "index.html").resolve().as_uri(), link_text="all windows", key="time-line")
    decision = str(result["decision"])
    if decision != "steady":
        labels = {"ballast.window": name, "ballast.decision": decision}
        payload = {key: result[key] for key in PAYLOAD}
        event = uuid5(NAMESPACE, f"{name}/{result['model']}/{decision}/{occasion}")
        tell("class-prior.shifted", f"ballast.window.{name}", payload, labels=labels, id=event)
    if decision == "reprior":
        correct_deployed(name, result["model"])
    return decision


PAYLOAD = ("window", "n", "model", "labels", "reference_prior", "estimated_prior", "low", "high", "decision", "reasons")


def correct_deployed(window: str, model: str) -> None:
    """Put the deployed model on a window's prior, unless another version has been deployed since the window was scored."""
    manifest = deployed()
    if manifest["version"] == model or manifest["window"] == window:
        promote(reprior=window, base=manifest["version"])
    else:
        get_run_logger().warning(
            "%s was scored by %s, %s is deployed since; it stays as it is", window, model, manifest["version"]
        )


def decision_markdown(result: dict[str, Any]) -> str:
    """The decision, its reasons and the estimates beside the naive count, as Markdown."""
    lines = [f"**{result['decision']}**: {'; '.join(result['reasons'])}", ""]
    if result["estimated_prior"] is not None:
        lines += ["| class | deployed prior | estimate (interval) | EMQ | classify and count |", "|---|---|---|---|---|"]
        lines += [
            f"| {label.replace('|', chr(92) + '|')} | {result['reference_prior'][label]:.3f} |"
            f" {result['estimated_prior'][label]:.3f} ({result['low'][label]:.3f} to {result['high'][label]:.3f}) |"
            f" {result['methods']['emq'][label]:.3f} | {result['methods']['classify_and_count'][label]:.3f} |"
            for label in result["labels"]
        ]
    return "\n".join(lines)


def main(window: str | None) -> None:
    with readable_errors():
        watch(window)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", metavar="NAME", help="a scored window; by default that of now, as params.yaml names it")
    run(main, arguments.parse_args())
