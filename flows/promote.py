"""Deploy the selected model, correct the deployed one to the class prior of a window, or roll back; then announce the change.

With --shadow, the selected model is stored as a version and nothing is deployed.

With `production.promote: review`, a new version waits for approval: its flow run pauses in Prefect and shows what would be
deployed; a reviewer resumes it with approve true or false. A rollback needs no approval. If Prefect is unavailable,
`python -m stages.production.promote` does the same, and the next run of this flow announces the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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
from flows.commands import run_command, run_for_result, stopping_commands
from flows.deployed import announce_pending, versions_table
from flows.failures import readable_errors
from flows.settings import production

COMMAND = ["python", "-m", "stages.production.promote"]
# One day, so that a version made at night can be approved in the morning.
PATIENCE_SECONDS = 86_400
POLL_SECONDS = 2
# If the selected model is older than the deployed one, or trained on fewer labels: an error, no change, or deploy it.
Older = Literal["refuse", "keep", "deploy"]
OLDER_OPTIONS: dict[Older, list[str]] = {"refuse": [], "keep": ["--keep-newer"], "deploy": ["--force"]}


class Approval(RunInput):
    """The answer of a reviewer."""

    approve: bool
    note: str = ""


class NotApproved(UserError):  # noqa: N818
    """No reviewer approved in time, or one refused; nothing was deployed."""


def run_name() -> str:
    """The name of a run, from what it deploys."""
    given = flow_run.parameters
    what = f"selected model of {given.get('source') or 'here'}" + (" for a shadow" if given.get("shadow") else "")
    for key, words in {"reprior": "prior of {}", "version": "version {}", "rollback": "the version before"}.items():
        what = words.format(given[key]) if given.get(key) else what
    return one_line(f"promote: {what}", LONGEST_TITLE)


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
    older: Older = "refuse",
    shadow: bool = False,
    version: str | None = None,
) -> str:
    """Deploy, and return the deployed version; emits `model.promoted` for every change that was not announced yet.

    Parameters
    ----------
    reprior : correct the deployed version to the prior estimated for this window, instead of deploying the selected model.
    rollback : deploy the previous version again.
    source : folder of another checkout; its selected model is deployed.
    reason, window : entries of the manifest: promote or retrain, and the window that triggered it.
    approve : this call is itself the approval.
    base : deploy only while this version is deployed; None for any.
    patience_seconds : how long a review waits.
    older : what to do with a model that is older than the deployed one, trained on fewer labels, or shown worse in shadow.
    shadow : store the selected model as a version without deploying it, and return that version.
    version : deploy this version, which was stored.

    Raises StageFailed if the version is refused, and NotApproved after a review without approval.
    """
    if sum(map(bool, (rollback, reprior, version, source or shadow))) > 1:
        raise UserError("rollback, reprior, version, and source or shadow cannot be combined; choose one of them")
    options = stage_options(reprior, rollback, source, reason, window, older)
    options += ["--shadow"] if shadow else [] if version is None else ["--version", version]
    options += [] if base is None else ["--base", base]
    note = ""
    with stopping_commands():
        if not (rollback or approve or shadow) and production().get("promote") == "review":
            proposal = run_stage(*options, "--dry-run")
            if proposal["new"]:
                check_number("patience_seconds", patience_seconds, 1, 3600 * YEAR_HOURS, whole=True)
                note = wait_for_approval(proposal, patience_seconds)
                options += ["--only", proposal["content"]]
        named = str(run_stage(*options)["version"])
    announce_pending(named, note)
    return named


def stage_options(
    reprior: str | None, rollback: bool, source: str | None, reason: str, window: str | None, older: Older
) -> list[str]:
    """The command-line options of the stage for the parameters of the flow."""
    if rollback:
        return ["--rollback"]
    if reprior is not None:
        return ["--reprior", reprior]
    triggered_by = [] if window is None else ["--window", window]
    return ["--from", source or ".", "--reason", reason, *triggered_by, *OLDER_OPTIONS[older]]


def run_stage(*options: str) -> dict[str, Any]:
    """Run the stage and return its result: the deployed version, or the proposal of a dry run."""
    return run_for_result("promote", [*COMMAND, *options], get_run_logger().info)


def wait_for_approval(proposal: Mapping[str, Any], patience_seconds: int) -> str:
    """Wait until a reviewer approves a proposal, and return the reviewer's note; raises NotApproved."""
    if not PREFECT_API_URL.value():
        raise UserError(
            "production.promote is review, but PREFECT_API_URL does not name a Prefect server where a reviewer can approve;"
            " look at `python -m stages.production.promote --dry-run`, then repeat the command with --approve"
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
        raise NotApproved(f"no approval within {patience_seconds} seconds; nothing was deployed") from error
    note = f": {answer.note}" if answer.note else ""
    if not answer.approve:
        raise NotApproved(f"rejected by a reviewer{note}; nothing was deployed")
    get_run_logger().info("approved%s", note)
    return answer.note


def proposal_markdown(proposal: Mapping[str, Any]) -> str:
    """A Markdown table of a proposal and the deployed version."""
    new, old = proposal["candidate"], proposal["deployed"]
    lead = f"**Forced**: {proposal['refused']}\n\n" if proposal["refused"] else ""
    lead += f"{proposal['shadow']}\n\n" if proposal["shadow"] else ""
    return lead + versions_table({f"proposed as {new['version']}": new} | ({f"deployed {old['version']}": old} if old else {}))


def main(listing: bool, force: bool, **given: Any) -> None:
    # Prefect stores parameters, so a URL with a secret must not reach it.
    for option, expected in {
        "source": "a local folder",
        "reprior": "a watched window",
        "window": "a window",
        "version": "a version",
    }.items():
        if "://" in (given.get(option) or ""):
            raise UserError(f"{given[option]!r} is a URL; expected {expected}")
    with readable_errors():
        if listing:
            run_command("promote", [*COMMAND, "--list"], print)
        else:
            print(promote(older="deploy" if force else "refuse", **given))


if __name__ == "__main__":
    arguments = parser(__doc__)
    what = arguments.add_mutually_exclusive_group()
    what.add_argument("--reprior", metavar="WINDOW", help="deploy the same weights on the class prior estimated for a window")
    what.add_argument("--rollback", action="store_true", help="deploy the previous version again")
    what.add_argument("--shadow", action="store_true", help="store the selected model as a version without deploying it")
    what.add_argument("--version", metavar="NAME", help="deploy a version that was stored with --shadow")
    what.add_argument("--list", action="store_true", dest="listing", help="list the versions")
    arguments.add_argument("--from", dest="source", metavar="FOLDER", help="another checkout (default: this one)")
    arguments.add_argument("--reason", choices=["promote", "retrain"], default="promote", help="the reason in the manifest")
    arguments.add_argument("--window", help="the window that triggered it")
    arguments.add_argument("--approve", action="store_true", help="approve a version that production.promote: review holds")
    arguments.add_argument(
        "--force",
        action="store_true",
        help="deploy even a model that is older, trained on fewer labels or shown worse in shadow",
    )
    arguments.add_argument(
        "--patience",
        type=int,
        default=PATIENCE_SECONDS,
        dest="patience_seconds",
        metavar="SECONDS",
        help="how long a review waits (default: one day)",
    )
    run(main, arguments.parse_args())
