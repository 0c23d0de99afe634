"""Deploy the selected model, the deployed one on a window's class prior, or the version before, and tell who listens.

With `production.promote: review` a new version waits for a person: its flow run pauses in Prefect, shows what would be
deployed, and is resumed there with approve true or false. Going back waits for nobody. Where Prefect is out of order,
`python -m stages.production.promote` does the same; the next run of this flow tells of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid5

from prefect import flow, get_run_logger
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.printable import LONGEST_TITLE, one_line
from ballast.parameters import YEAR_HOURS, check_number
from flows import artifacts
from flows.alarms import NAMESPACE, tell
from flows.commands import run_command, stopping_commands
from flows.failures import readable_errors
from flows.locks import single_instance
from flows.settings import production
from flows.state import read_bytes, read_state, write_state

DEPLOYED = Path("production/deployed")
CURRENT = DEPLOYED / "current.json"
ANNOUNCED = DEPLOYED / ".announced"
VERSION = re.compile(r"\d{4,}")
# A day, so that a version that is made at night waits for the morning.
PATIENCE_SECONDS = 86_400
POLL_SECONDS = 2
METRICS = ("precision", "recall", "f1")


class Approval(RunInput):
    """What a person answers."""

    approve: bool
    note: str = ""


class NotApproved(UserError):  # noqa: N818
    """Nobody approved in time, or somebody said no; nothing was deployed."""


def run_name() -> str:
    """The name of a run: what is deployed."""
    given = flow_run.parameters
    what = f"prior of {given['reprior']}" if given.get("reprior") else f"selected model of {given.get('source') or 'here'}"
    return one_line("promote: " + ("the version before" if given.get("rollback") else what), LONGEST_TITLE)


@flow(name="promote", flow_run_name=run_name)
def promote(
    reprior: str | None = None,
    rollback: bool = False,
    source: str | None = None,
    reason: str = "promote",
    window: str | None = None,
    approve: bool = False,
    base: str | None = None,
    patience_seconds: int = PATIENCE_SECONDS,
    force: bool = False,
    keep_newer: bool = False,
) -> str:
    """Deploy, and return the version that is deployed then; emits `model.promoted` for every switch not yet told of.

    Parameters
    ----------
    reprior : the window to whose estimated prior the deployed version is corrected; None deploys the selected model.
    rollback : go back to the version before.
    source : the folder of another checkout, whose selected model is deployed.
    reason, window : promote or retrain, and the window that gave occasion, for the manifest.
    approve : this call is a person's approval.
    base : the version that is to be deployed still, when this one takes its place; None is any.
    patience_seconds : how long a review waits.
    force : deploy also an older model than the deployed one, or one that knows fewer labelled messages.
    keep_newer : where the selected model is such a one, the deployed version stays, without an error.

    Raises StageFailed when the version is refused, and NotApproved after a review without approval.
    """
    if rollback and (reprior or source):
        raise UserError("either go back, or deploy something: rollback goes with neither reprior nor source")
    if rollback:
        options = ["--rollback"]
    elif reprior is not None:
        options = ["--reprior", reprior]
    else:
        options = ["--from", source or ".", "--reason", reason, *(["--window", window] if window else [])]
        options += ["--force"] if force else ["--keep-newer"] if keep_newer else []
    options += [] if base is None else ["--base", base]
    note = ""
    with stopping_commands():
        if not (rollback or approve) and production().get("promote") == "review":
            proposal = json.loads(next(line for line in command(*options, "--dry-run") if line.startswith("{")))
            if proposal["new"]:
                check_number("patience_seconds", patience_seconds, 1, 3600 * YEAR_HOURS, whole=True)
                note = reviewed(proposal, patience_seconds)
                options += ["--only", proposal["content"]]
        version = next(line for line in reversed(command(*options)) if VERSION.fullmatch(line))
    announce_all(version, note)
    return version


def command(*options: str) -> list[str]:
    """Run the stage: the lines that it prints, which go to the log too, but for JSON."""
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if not line.startswith("{"):
            get_run_logger().info(line)

    run_command("promote", ["python", "-m", "stages.production.promote", *options], log)
    return lines


def deployed() -> dict[str, Any]:
    """The manifest of the deployed version."""
    return manifest_of(read_state(CURRENT)["version"])


def manifest_of(version: str) -> dict[str, Any]:
    """The manifest of a version, as it was when the version was deployed."""
    path = DEPLOYED / version / "manifest.json"
    pin = next((switch.get("sha256") for switch in switches() if switch["version"] == version), None)
    # A version of before manifests carried a digest has only the pin.
    return read_state(path) if pin is None else dict(json.loads(read_bytes(path, pin)))


def switches() -> list[dict[str, str]]:
    """Every switch of the deployed version so far."""
    return list(read_state(CURRENT)["history"]) if CURRENT.exists() else []


def announced() -> int:
    """How many switches were told of; raises UserError when the file is broken."""
    if not ANNOUNCED.exists():
        return 0
    # An earlier version wrote the number alone.
    content = read_bytes(ANNOUNCED)
    return int(content) if content.strip().isdigit() else int(read_state(ANNOUNCED)["announced"])


def announce_all(version: str, note: str) -> None:
    """Tell of every switch that was not told of: this run's, and those of who was killed before, or had no Prefect.

    note : a person's, on the switch to `version`.
    """
    with single_instance(ANNOUNCED.with_suffix(".lock"), wait=True):
        for at, switch in list(enumerate(switches()))[announced() :]:
            announce(at, note if switch["version"] == version else "")
            write_state(ANNOUNCED, {"announced": at + 1})


def reviewed(proposal: Mapping[str, Any], patience_seconds: int) -> str:
    """Wait until a person has approved a proposal: what they noted; raises NotApproved."""
    if not PREFECT_API_URL.value():
        raise UserError(
            "production.promote is review, but no Prefect server is set (PREFECT_API_URL) in which somebody could approve;"
            " look at `python -m stages.production.promote --dry-run` and repeat the command with --approve"
        )
    artifacts.markdown(proposal_markdown(proposal), key="proposal", description="what would be deployed")
    get_run_logger().info("production.promote is review: resume this run with approve true or false")
    try:
        answer = pause_flow_run(
            Approval.with_initial_data(description=proposal_markdown(proposal), approve=False),
            timeout=patience_seconds,
            poll_interval=POLL_SECONDS,
        )
    except FlowPauseTimeout as error:
        raise NotApproved(f"nobody approved within {patience_seconds} seconds; nothing was deployed") from error
    said = f": {answer.note}" if answer.note else ""
    if not answer.approve:
        raise NotApproved(f"a person refused{said}; nothing was deployed")
    get_run_logger().info("approved%s", said)
    return answer.note


def proposal_markdown(proposal: Mapping[str, Any]) -> str:
    """A proposal beside what is deployed, as a Markdown table."""
    new, old = proposal["candidate"], proposal["deployed"]
    forced = f"**Forced**: {proposal['refused']}\n\n" if proposal["refused"] else ""
    return forced + table({f"proposed as {new['version']}": new} | ({f"deployed {old['version']}": old} if old else {}))


def table(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Versions by their titles side by side: technique, prior, and what they reach on test."""
    first = next(iter(manifests.values()))
    rows: list[list[str]] = [["", *manifests], ["---"] * (len(manifests) + 1)]
    rows.append(["technique", *(f"{each['technique']}, seed {each['seed']}" for each in manifests.values())])
    for label in first["labels"]:
        shares = [each["production_prior"].get(label) for each in manifests.values()]
        rows.append([f"production prior of {label}", *("" if share is None else f"{share:.3f}" for share in shares)])
    for metric in ["macro_f1", *(f"{label}.{metric}" for label in first["labels"] for metric in METRICS)]:
        found = [each["operating_point"]["test"].get(metric) for each in manifests.values()]
        rows.append([f"test {metric}", *("" if each is None else with_interval(each) for each in found)])
    rows.append(["commit", *(commit(each["lineage"]) for each in manifests.values())])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def commit(lineage: Mapping[str, Any]) -> str:
    """The commit that a version came from."""
    changes = f" and changes of {', '.join(lineage['modified'])}" if lineage["modified"] else ""
    return (lineage["commit"] or "none")[:12] + changes


def with_interval(found: Mapping[str, float]) -> str:
    """A metric's value and interval."""
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**found)


def announce(at: int, note: str) -> None:
    """Tell of a switch, and by which event a trigger may hear of it; nothing where the version has been deleted since."""
    history = switches()
    version, reason = history[at]["version"], history[at]["reason"]
    if not (DEPLOYED / version / "manifest.json").exists():
        return
    previous = history[at - 1]["version"] if at else None
    manifest = manifest_of(version)
    payload = {
        "version": version,
        "reason": reason,
        "technique": manifest["technique"],
        "production_prior": manifest["production_prior"],
        "previous": previous,
        "window": manifest["window"],
        "note": note,
    }
    labels = {"prefect.resource.name": f"model {version}", "ballast.reason": reason}
    event = uuid5(NAMESPACE, f"{version}/{reason}/{history[at]['at']}")
    tell("model.promoted", f"ballast.model.{version}", payload, labels=labels, id=event)
    earlier = DEPLOYED / str(previous) / "manifest.json"
    titles = {f"deployed {version}": manifest}
    if earlier.exists():
        titles[f"before {previous}"] = manifest_of(str(previous))
    card = read_bytes(DEPLOYED / version / "model_card.md", manifest["files"].get("model_card.md")).decode()
    text = f"Version **{version}** is deployed ({reason}).\n\n{table(titles)}\n\n{card}"
    artifacts.markdown(text, key="deployed-model", description=f"version {version}")


def main(listing: bool, **given: Any) -> None:
    # Before Prefect keeps what may be a URL with a secret.
    for option, expected in {"source": "a folder here", "reprior": "a watched window", "window": "a window"}.items():
        if "://" in (given.get(option) or ""):
            raise UserError(f"{given[option]!r} is a URL; expected {expected}")
    with readable_errors():
        if listing:
            run_command("promote", ["python", "-m", "stages.production.promote", "--list"], print)
        else:
            print(promote(**given))


if __name__ == "__main__":
    arguments = parser(__doc__)
    what = arguments.add_mutually_exclusive_group()
    what.add_argument("--reprior", metavar="WINDOW", help="the deployed weights on the class prior estimated for a window")
    what.add_argument("--rollback", action="store_true", help="go back to the version before")
    what.add_argument("--list", action="store_true", dest="listing", help="list the versions")
    arguments.add_argument("--from", dest="source", metavar="FOLDER", help="of another checkout (default: here)")
    arguments.add_argument("--reason", choices=["promote", "retrain"], default="promote", help="what the manifest says")
    arguments.add_argument("--window", help="the window that gave occasion")
    arguments.add_argument("--approve", action="store_true", help="with production.promote: review, this is the approval")
    arguments.add_argument("--force", action="store_true", help="also an older model, or one that knows fewer labels")
    arguments.add_argument(
        "--patience",
        type=int,
        default=PATIENCE_SECONDS,
        dest="patience_seconds",
        metavar="SECONDS",
        help="of a review",
    )
    run(main, arguments.parse_args())
