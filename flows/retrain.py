"""Retrain on all labels so far, and promote the challenger when it is not worse than the champion.

Started by the event of a shifted class prior, by a schedule, or by hand. The pipeline runs in a checkout of its own under
`production/retrain/`, so that nothing here is disturbed. A retraining that was stopped goes on where it was; one that has been
decided is not repeated.
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
from ballast.io.printable import LONGEST_TITLE, one_line
from flows import artifacts
from flows.alarms import tell
from flows.commands import run_command, stopping_commands
from flows.failures import readable_errors
from flows.locks import single_instance
from flows.promote import CURRENT, NotApproved, deployed, promote
from flows.state import read_state

RETRAIN = Path("production/retrain")
OUTDATED, REFUSED = "outdated", "refused"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def run_name() -> str:
    """The name of a run: the window that asked for it."""
    given = flow_run.parameters
    return one_line(f"retrain: {given.get('key') or given.get('window') or 'all labels so far'}", LONGEST_TITLE)


@flow(name="retrain", flow_run_name=run_name)
def retrain(window: str | None = None, key: str | None = None) -> str:
    """Retrain, and return the decision: promoted, kept, refused by a person, or outdated as another version was deployed since.

    Parameters
    ----------
    window : whose class prior is trained for; None keeps the deployed one.
    key : names the retraining; by default the window, or the time.

    Raises StageFailed, and UserError while another retraining runs here.
    """
    key = key or window or datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    check_key(key)
    home, logger = RETRAIN / key, get_run_logger()
    with single_instance(RETRAIN / ".lock"), stopping_commands():
        if decided := decision_of(home):
            logger.info("%s has been decided: %s", key, decided)
            if (home / "worktree").exists():
                # Somebody was killed while it was removed.
                version = read_state(home / "decision.json")["version"]
                conclude(key, version, decided if decided in (OUTDATED, REFUSED) else None)
            if not_home(home):
                logger.warning("its result waits for `python -m stages.production.retrain bring-home %s`", key)
            return decided
        if ours(home):
            # Somebody was killed after the switch. Until the result is here, the files here may be of two models.
            promote(source=str(home / "worktree"), reason="retrain", window=window, keep_newer=True)
            return finish(key, None)
        step("feedback", "stages.production.feedback")
        step("prepare", "stages.production.retrain", "prepare", key, *([] if window is None else ["--window", window]))
        if not (home / "prepared.json").exists():
            return OUTDATED
        # A pipeline of its own in Prefect, with its retries and artifacts; DVC goes on where a stopped one was.
        run_command("pipeline", ["python", "-m", "flows.pipeline"], logger.info, folder=home / "worktree")
        step("challenge", "stages.production.retrain", "challenge", key)
        result = read_state(home / "challenge.json")
        outdated = superseded(result["champion"], window)
        instead, base = OUTDATED if outdated else None, deployed()["version"]
        try:
            # Where somebody has deployed a version meanwhile, nobody compared the challenger with that.
            if not outdated and result["not_worse"]:
                promote(source=str(home / "worktree"), reason="retrain", window=window, base=base)
            elif not outdated and result["shifted"]:
                promote(reprior=window, base=base)
        except NotApproved as answer:
            logger.warning("%s", answer)
            instead = REFUSED
        artifacts.markdown(comparison_markdown(result), key="challenge", description=f"challenger of {result['champion']}")
        if not result["not_worse"] and not outdated:
            # Before the end, for nothing is repeated after it: rather twice than never.
            version = deployed()["version"]
            payload = {name: result[name] for name in (*PAYLOAD, "window", "champion")} | {"version": version}
            tell("model.kept", f"ballast.model.{version}", payload)
        return finish(key, instead)


PAYLOAD = ("metric", "difference", "low", "high", "margin", "test", "test_from_feedback")


def step(name: str, module: str, *arguments: str) -> None:
    """Run a stage."""
    run_command(name, ["python", "-m", module, *arguments], get_run_logger().info)


def finish(key: str, instead: str | None) -> str:
    """Bring the result of what was promoted home, and conclude: the decision."""
    home = RETRAIN / key
    if instead is None and ours(home):
        step("bring home", "stages.production.retrain", "bring-home", key, "--unless-edited")
    conclude(key, deployed()["version"], instead)
    return decision_of(home)


def ours(home: Path) -> bool:
    """Whether the deployed version is the one of a retraining's checkout, or has its weights on another prior."""
    if not ((home / "challenge.json").exists() and CURRENT.exists()):
        return False
    lineage = deployed().get("lineage", {})
    files = {"params": home / "worktree/params.yaml", "dvc_lock": home / "worktree/dvc.lock"}
    return all(path.is_file() and file_sha256(path) == lineage.get(name) for name, path in files.items())


def conclude(key: str, version: str, instead: str | None) -> None:
    """Note the decision, which is that of the comparison or another one instead, and remove the checkout."""
    step(
        "conclude",
        "stages.production.retrain",
        "conclude",
        key,
        "--version",
        version,
        *(["--instead", instead] if instead else []),
    )


def superseded(champion: str, window: str | None) -> bool:
    """Whether another version than the champion is deployed now, and not by this retraining before it was stopped."""
    manifest = deployed()
    ours = window is not None and manifest["window"] == window and manifest["reason"] in ("retrain", "reprior")
    return bool(manifest["version"] != champion and not ours)


def decision_of(home: Path) -> str:
    """What was decided in a retraining's folder; nothing while it is open."""
    path = home / "decision.json"
    return str(read_state(path)["decision"]) if path.exists() else ""


def not_home(home: Path) -> bool:
    """Whether the result of what was promoted waits in a retraining's folder, because of edits here."""
    path = home / "decision.json"
    return path.exists() and read_state(path).get("brought_home") is False


def comparison_markdown(result: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    said = "is promoted: it is not worse" if result["not_worse"] else "is not promoted: it may be worse"
    head = f"| {result['metric']} of the challenger | of the champion | difference (paired interval) |"
    numbers = "{challenger_metric:.3f} | {champion_metric:.3f} | {difference:+.3f} ({low:+.3f} to {high:+.3f})".format(**result)
    return (
        f"The challenger ({result['technique']}, seed {result['seed']}) {said} than version {result['champion']} by more than"
        f" {result['margin']:g}.\n\n{head}\n|---|---|---|\n| {numbers} |\n"
    )


def check_key(key: str) -> None:
    """Raise UserError for what cannot name the folder of a retraining."""
    if not KEY.fullmatch(key):
        raise UserError(
            f"the key {key[:200]!r} names a folder; expected letters, digits, dots, dashes, underscores, at most 200"
        )


def main(window: str | None, key: str | None) -> None:
    # Before Prefect keeps what may be a URL with a secret.
    for name in filter(None, (window, key)):
        check_key(name)
    with readable_errors():
        print(retrain(window, key))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", metavar="NAME", help="train for the class prior of this watched window")
    arguments.add_argument("--key", metavar="NAME", help="go on with the retraining of this name")
    run(main, arguments.parse_args())
