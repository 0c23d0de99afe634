"""Replay traffic: draw windows of held-out messages at given shares of the rare class, and drive score and watch through them.

The labels of a window come one window later. A decision to retrain starts the deployment of retrain where a Prefect server
has one, and is waited for; without one it is carried out here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect import flow, get_client, get_run_logger
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from ballast.cli import parser, run
from ballast.exceptions import UserError, short
from ballast.io.secret_urls import add_secret_url
from ballast.parameters import SEEDS, check_number
from flows.commands import run_command, stopping_commands
from flows.failures import readable_errors
from flows.locks import single_instance
from flows.promote import promote
from flows.retrain import RETRAIN, decision_of, finish, not_home, ours, retrain
from flows.score import no_secrets, score
from flows.watch import watch

REPLAY, LABELS = Path("production/replay"), Path("production/labels")
DEPLOYMENT = "retrain/retrain"
PATIENCE_SECONDS = 3600.0
# A replay scores its windows one after the other.
MOST_WINDOWS, MOST_MESSAGES = 1000, 1_000_000
# The event may have started its run before it was waited for.
EARLIER = timedelta(seconds=30)


@flow(name="replay")
def replay(
    schedule: list[float], size: int = 1000, labelled: float = 0.5, seed: int = 0, source: str | None = None
) -> list[str]:
    """Deploy the selected model, then score and watch a window for each share; the decisions, in order.

    A deployed version that is newer than what is selected here, as after a retraining, stays, which the log says.

    Parameters
    ----------
    schedule : share of the rare class in each window, between 0 and 1.
    size : messages of a window.
    labelled : share of a window's messages whose labels come one window later; 0 for none.
    source : a file of labelled messages; by default those of the data that were not trained on.
    """
    no_secrets(source)
    check(schedule, size, labelled, seed)
    logger, decisions = get_run_logger(), list[str]()
    options = ["--size", str(size), "--labelled", str(labelled), "--seed", str(seed)]
    options += [] if source is None else ["--source", source]
    with stopping_commands():
        run_command("draw", ["python", "-m", "stages.production.draw", *options, *map(str, schedule)], logger.info)
        with single_instance(RETRAIN / ".lock"):
            for path in RETRAIN.glob("replay-*"):
                forget(path)
        promote(keep_newer=True)
        before = None
        for path in sorted(REPLAY.glob("*.parquet")):
            if before is not None:
                deliver(before)
            score(str(path), path.stem, announce=False)
            decisions.append(watch(path.stem, occasion=str(flow_run.id)))
            if decisions[-1] == "retrain":
                retrained(path.stem)
            before = path.stem
    logger.info("%s", "\n".join(f"{share:.2f}: {decision}" for share, decision in zip(schedule, decisions, strict=True)))
    return decisions


def check(schedule: Sequence[float], size: int, labelled: float, seed: int) -> None:
    """Raise UserError for what nothing can be replayed by."""
    check_number("the number of windows in schedule", len(schedule), 1, MOST_WINDOWS, whole=True)
    for share in schedule:
        check_number("a share in schedule", share, 0, 1)
    check_number("labelled", labelled, 0, 1)
    check_number("size", size, 1, MOST_MESSAGES, whole=True)
    check_number("seed", seed, 0, SEEDS, whole=True)


def forget(home: Path) -> None:
    """Delete the retraining of an earlier replay; what it has not brought home yet stays under another name."""
    if ours(home):
        # Somebody was killed after the switch.
        finish(home.name, None)
    if not_home(home):
        home.rename(home.with_name(f"waiting-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{home.name}"))
    else:
        shutil.rmtree(home)


def deliver(window: str) -> None:
    """Put the labels of a window where the watch finds them."""
    labels = REPLAY / "labels" / f"{window}.csv"
    if labels.exists():
        LABELS.mkdir(parents=True, exist_ok=True)
        shutil.copy(labels, LABELS / labels.name)


def deployment() -> UUID | None:
    """The deployment that the event of a shifted prior starts, if a server has it."""
    if not PREFECT_API_URL.value():
        return None
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(DEPLOYMENT).id
        except ObjectNotFound:
            return None


def retrained(window: str) -> None:
    """Wait for the retraining that the window's event started, or retrain here; raises UserError when that fails."""
    found = deployment()
    if found is None:
        retrain(window)
        return
    get_run_logger().info("waiting for the deployment %s", DEPLOYMENT)
    began, deadline = datetime.now(UTC), time.monotonic() + PATIENCE_SECONDS
    while not decision_of(RETRAIN / window):
        if time.monotonic() > deadline:
            raise UserError(f"no retraining for {window} ended within an hour; is a worker running?")
        if ended := unsuccessful(found, window, began - EARLIER):
            raise UserError(f"the retraining for {window} failed: {ended}")
        time.sleep(1)


def unsuccessful(deployment: UUID, window: str, since: datetime) -> str:
    """Why the last run of the deployment for a window since a time did not succeed; nothing when it did, or goes on."""
    of_deployment = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=of_deployment, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    last = next(
        (run.state for run in runs if run.parameters.get("window") == window and run.created and run.created >= since), None
    )
    wrong = last is not None and last.is_final() and not last.is_completed()
    return f"{last.name}: {last.message or 'no message'}" if last is not None and wrong else ""


def main(schedule: str, size: int, labelled: float, seed: int, source: str | None) -> None:
    try:
        shares = [float(share) for share in schedule.split(",")]
    except ValueError as error:
        raise UserError(f"--schedule {short(schedule)!r}: expected shares such as 0.13,0.40") from error
    # Before Prefect, which takes seconds to begin a flow.
    check(shares, size, labelled, seed)
    with readable_errors():
        decisions = replay(shares, size, labelled, seed, source and add_secret_url(source))
    for share, decision in zip(shares, decisions, strict=True):
        print(f"{share:.2f} {decision}")


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--schedule", required=True, metavar="SHARES", help="of the rare class, such as 0.13,0.13,0.40")
    arguments.add_argument("--size", type=int, default=1000, metavar="N", help="messages of a window (default 1000)")
    arguments.add_argument(
        "--labelled",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the messages, labelled a window later (default 0.5)",
    )
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--source", metavar="FILE", help="labelled messages to draw from, with the columns of ingest")
    run(main, arguments.parse_args())
