"""Retrain on all labels so far, and promote the challenger if it is not worse than the champion.

Started by the event of a shifted class prior, by a schedule, or by hand. The pipeline runs in a separate checkout under
`production/retrain/`, so this one is not disturbed. An interrupted retraining resumes; a decided one is not repeated.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.printable import LONGEST_TITLE, one_line, trainings_in_words
from flows import artifacts
from flows.alarms import notify
from flows.commands import run_command, run_for_result, stopping_commands
from flows.deployed import CURRENT, deployed_manifest
from flows.failures import readable_errors
from flows.locks import single_instance
from flows.promote import NotApproved, promote
from flows.state import read_state

RETRAIN = Path("production/retrain")
OUTDATED, REFUSED = "outdated", "refused"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
PAYLOAD = ("metric", "difference", "low", "high", "margin", "test", "test_from_feedback")


def run_name() -> str:
    """The name of a run, from the window that triggered it."""
    given = flow_run.parameters
    return one_line(f"retrain: {given.get('key') or given.get('window') or 'all labels so far'}", LONGEST_TITLE)


@flow(name="retrain", flow_run_name=run_name)
def retrain(window: str | None = None, key: str | None = None) -> str:
    """Retrain, and return the decision: promoted, kept, refused by a reviewer, or outdated by a newer deployed version.

    Parameters
    ----------
    window : train for the class prior of this window; None for the prior of the deployed version.
    key : name of the retraining; by default the window, or the time.

    Raises StageFailed, and UserError while another retraining runs here.
    """
    key = key or window or datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    check_key(key)
    with single_instance(RETRAIN / ".lock"), stopping_commands():
        if decision := decision_of(RETRAIN / key):
            return repeat_decision(key, decision)
        if is_deployed(RETRAIN / key):
            # An earlier run was killed after the promotion. Until the result is here, files here may belong to two models.
            promote(source=str(RETRAIN / key / "worktree"), reason="retrain", window=window, older="keep")
            return finish(key, None)
        run_command("feedback", ["python", "-m", "stages.production.feedback"], get_run_logger().info)
        if not run_step("prepare", key, *([] if window is None else ["--window", window]))["prepared"]:
            return OUTDATED
        # A separate pipeline run in Prefect, with retries and artifacts; DVC resumes an interrupted one.
        run_command("pipeline", ["python", "-m", "flows.pipeline"], get_run_logger().info, folder=RETRAIN / key / "worktree")
        return challenge(key, window)


def repeat_decision(key: str, decision: str) -> str:
    """Return an earlier decision, after the cleanup that a killed run left undone."""
    folder, logger = RETRAIN / key, get_run_logger()
    logger.info("%s has been decided: %s", key, decision)
    if (folder / "worktree").exists():
        version = read_state(folder / "decision.json")["version"]
        conclude(key, version, decision if decision in (OUTDATED, REFUSED) else None)
    if waits_to_be_brought_home(folder):
        logger.warning("its result waits for `python -m stages.production.retrain bring-home %s`", key)
    return decision


def challenge(key: str, window: str | None) -> str:
    """Compare the challenger with the champion, promote what the comparison allows, and return the decision."""
    comparison = run_step("challenge", key)
    outdated = is_superseded(comparison["champion"], window)
    instead, base = OUTDATED if outdated else None, deployed_manifest()["version"]
    try:
        # A version that was deployed in the meantime was not part of the comparison.
        if not outdated and comparison["not_worse"]:
            promote(source=str(RETRAIN / key / "worktree"), reason="retrain", window=window, base=base)
        elif not outdated and comparison["shifted"]:
            promote(reprior=window, base=base)
    except NotApproved as refusal:
        get_run_logger().warning("%s", refusal)
        instead = REFUSED
    champion = comparison["champion"]
    artifacts.markdown(comparison_markdown(comparison), key="challenge", description=f"challenger of {champion}")
    if not comparison["not_worse"] and not outdated:
        # Before the end, because nothing is repeated after it: two notifications are better than none.
        version = deployed_manifest()["version"]
        payload = {name: comparison[name] for name in (*PAYLOAD, "window", "champion")} | {"version": version}
        notify("model.kept", f"ballast.model.{version}", payload)
    return finish(key, instead)


def run_step(step: str, key: str, *options: str) -> dict[str, Any]:
    """Run a step of the retraining stage, and return its result."""
    command = ["python", "-m", "stages.production.retrain", step, key, *options]
    return run_for_result(step, command, get_run_logger().info)


def finish(key: str, instead: str | None) -> str:
    """Bring the result of a promoted retraining home, conclude, and return the decision."""
    if instead is None and is_deployed(RETRAIN / key):
        run_step("bring-home", key, "--unless-edited")
    return conclude(key, deployed_manifest()["version"], instead)


def is_deployed(folder: Path) -> bool:
    """Whether the deployed version comes from a retraining's checkout, possibly corrected to another prior."""
    if not ((folder / "challenge.json").exists() and CURRENT.exists()):
        return False
    lineage = deployed_manifest().get("lineage", {})
    files = {"params": folder / "worktree/params.yaml", "dvc_lock": folder / "worktree/dvc.lock"}
    return all(path.is_file() and file_sha256(path) == lineage.get(name) for name, path in files.items())


def conclude(key: str, version: str, instead: str | None) -> str:
    """Record and return the decision, which is that of the comparison or `instead`, and remove the checkout."""
    options = ["--version", version, *(["--instead", instead] if instead else [])]
    return str(run_step("conclude", key, *options)["decision"])


def is_superseded(champion: str, window: str | None) -> bool:
    """Whether a version other than the champion is deployed that this retraining did not deploy before an interruption."""
    manifest = deployed_manifest()
    ours = window is not None and manifest["window"] == window and manifest["reason"] in ("retrain", "reprior")
    return bool(manifest["version"] != champion and not ours)


def decision_of(folder: Path) -> str:
    """The decision in a retraining's folder, or "" if there is none yet."""
    path = folder / "decision.json"
    return str(read_state(path)["decision"]) if path.exists() else ""


def waits_to_be_brought_home(folder: Path) -> bool:
    """Whether the result of a promoted retraining is still in its folder, because files were edited here."""
    path = folder / "decision.json"
    return path.exists() and read_state(path).get("brought_home") is False


def comparison_markdown(comparison: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    verdict = "is promoted: it is not worse" if comparison["not_worse"] else "is not promoted: it may be worse"
    header = f"| {comparison['metric']} of the challenger | of the champion | difference (paired interval) |"
    numbers = "{challenger_metric:.3f} | {champion_metric:.3f} | {difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return (
        f"The challenger ({comparison['technique']}, {trainings_in_words(comparison)}) {verdict} than version"
        f" {comparison['champion']} by more than {comparison['margin']:g}.\n\n"
        f"{header}\n|---|---|---|\n| {numbers.format(**comparison)} |\n"
    )


def check_key(key: str) -> None:
    """Raise UserError for a key that cannot be the name of a folder."""
    if not KEY.fullmatch(key):
        raise UserError(
            f"the key {key[:200]!r} must name a folder; expected at most 200 letters, digits, dots, dashes and underscores"
        )


def main(window: str | None, key: str | None) -> None:
    # Prefect stores parameters, so a URL with a secret must not reach it.
    for name in filter(None, (window, key)):
        check_key(name)
    with readable_errors():
        print(retrain(window, key))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", metavar="NAME", help="train for the class prior of this watched window")
    arguments.add_argument("--key", metavar="NAME", help="name of the retraining; an unfinished one resumes")
    run(main, arguments.parse_args())
