"""Replay traffic: draw windows of held-out messages with given shares of the rare class, then score and watch each one.

The labels of a window arrive one window later. After a decision to retrain, the replay waits for the deployment of retrain if
a Prefect server has one, and otherwise retrains itself.
"""

from __future__ import annotations

import csv
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
from flows.retrain import RETRAIN, decision_of, finish, is_deployed, retrain, waits_to_be_brought_home
from flows.score import no_secrets, score
from flows.state import read_state
from flows.watch import WATCH, watch

REPLAY, LABELS = Path("production/replay"), Path("production/labels")
DEPLOYMENT = "retrain/retrain"
PATIENCE_SECONDS = 3600.0
MOST_WINDOWS, MOST_MESSAGES = 1000, 1_000_000
# The event may have started its run a little before the wait.
EARLIER = timedelta(seconds=30)


@flow(name="replay")
def replay(
    schedule: list[float], size: int = 1000, labelled: float = 0.5, seed: int = 0, source: str | None = None
) -> list[str]:
    """Deploy the selected model, score and watch a window for each share, and return the decisions in order.

    A deployed version that is newer than the selected model, as after a retraining, stays deployed.

    Parameters
    ----------
    schedule : share of the rare class in each window, between 0 and 1.
    size : messages in a window.
    labelled : share of a window's messages that are labelled one window later, beside those that the watch asks to label; 0
        for no labels.
    source : a file of labelled messages; by default the held-out messages of the data.
    """
    no_secrets(source)
    check_arguments(schedule, size, labelled, seed)
    logger, decisions = get_run_logger(), list[str]()
    options = ["--size", str(size), "--labelled", str(labelled), "--seed", str(seed)]
    options += [] if source is None else ["--source", source]
    with stopping_commands():
        run_command("draw", ["python", "-m", "stages.production.draw", *options, *map(str, schedule)], logger.info)
        with single_instance(RETRAIN / ".lock"):
            for path in RETRAIN.glob("replay-*"):
                delete_retraining(path)
        promote(older="keep")
        before = None
        for path in sorted(REPLAY.glob("*.parquet")):
            if before is not None:
                deliver_labels(before)
            score(str(path), path.stem, announce=False)
            decisions.append(watch(path.stem, occasion=str(flow_run.id)))
            if decisions[-1] == "retrain":
                wait_for_retraining(path.stem)
            before = path.stem
    logger.info("%s", "\n".join(f"{share:.2f}: {decision}" for share, decision in zip(schedule, decisions, strict=True)))
    return decisions


def check_arguments(schedule: Sequence[float], size: int, labelled: float, seed: int) -> None:
    """Raise UserError for an argument outside its range."""
    check_number("the number of windows in schedule", len(schedule), 1, MOST_WINDOWS, whole=True)
    for share in schedule:
        check_number("a share in schedule", share, 0, 1)
    check_number("labelled", labelled, 0, 1)
    check_number("size", size, 1, MOST_MESSAGES, whole=True)
    check_number("seed", seed, 0, SEEDS, whole=True)


def delete_retraining(folder: Path) -> None:
    """Delete the retraining of an earlier replay; a result that was not brought home stays, under another name."""
    if is_deployed(folder):
        # An earlier run was killed after the promotion.
        finish(folder.name, None)
    if waits_to_be_brought_home(folder):
        folder.rename(folder.with_name(f"waiting-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{folder.name}"))
    else:
        shutil.rmtree(folder)


def deliver_labels(window: str) -> None:
    """Write the labels of a window to where the watch reads them: of random messages, and of those that the watch asked for."""
    truth = dict(csv_rows(REPLAY / "truth" / f"{window}.csv"))
    wanted = {identifier for identifier, _ in csv_rows(REPLAY / "labels" / f"{window}.csv")}
    wanted |= {str(message["id"]) for message in read_state(WATCH / f"{window}.json")["to_label"]}
    if rows := [row for row in truth.items() if row[0] in wanted]:
        LABELS.mkdir(parents=True, exist_ok=True)
        with (LABELS / f"{window}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("id", "label"), *rows])


def csv_rows(path: Path) -> list[tuple[str, str]]:
    """Ids and labels of a csv file with a header; none if the file does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [(identifier, label) for identifier, label in csv.reader(file)][1:]


def deployment() -> UUID | None:
    """The deployment that the event of a shifted prior starts, or None if no server has it."""
    if not PREFECT_API_URL.value():
        return None
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(DEPLOYMENT).id
        except ObjectNotFound:
            return None


def wait_for_retraining(window: str) -> None:
    """Wait for the retraining that the window's event started, or retrain here; raises UserError if it fails."""
    deployment_id = deployment()
    if deployment_id is None:
        retrain(window)
        return
    get_run_logger().info("waiting for the deployment %s", DEPLOYMENT)
    began, deadline = datetime.now(UTC), time.monotonic() + PATIENCE_SECONDS
    while not decision_of(RETRAIN / window):
        if time.monotonic() > deadline:
            raise UserError(f"no retraining for {window} ended within an hour; check that a worker is running")
        if reason := failure_of_run(deployment_id, window, began - EARLIER):
            raise UserError(f"the retraining for {window} failed: {reason}")
        time.sleep(1)


def failure_of_run(deployment: UUID, window: str, since: datetime) -> str:
    """Why the last run of the deployment for a window since a time failed; "" if it succeeded or still runs."""
    of_deployment = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=of_deployment, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    last = next(
        (run.state for run in runs if run.parameters.get("window") == window and run.created and run.created >= since), None
    )
    if last is None or not last.is_final() or last.is_completed():
        return ""
    return f"{last.name}: {last.message or 'no message'}"


def main(schedule: str, size: int, labelled: float, seed: int, source: str | None) -> None:
    try:
        shares = [float(share) for share in schedule.split(",")]
    except ValueError as error:
        raise UserError(f"--schedule {short(schedule)!r}: expected shares such as 0.13,0.40") from error
    # Before Prefect, which takes seconds to start a flow.
    check_arguments(shares, size, labelled, seed)
    with readable_errors():
        decisions = replay(shares, size, labelled, seed, source and add_secret_url(source))
    for share, decision in zip(shares, decisions, strict=True):
        print(f"{share:.2f} {decision}")


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--schedule", required=True, metavar="SHARES", help="shares of the rare class, such as 0.13,0.40")
    arguments.add_argument("--size", type=int, default=1000, metavar="N", help="messages in a window (default 1000)")
    arguments.add_argument(
        "--labelled",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of messages that are labelled one window later (default 0.5)",
    )
    arguments.add_argument("--seed", type=int, default=0, help="random seed of the draw (default 0)")
    arguments.add_argument("--source", metavar="FILE", help="labelled messages to draw from, with the columns of ingest")
    run(main, arguments.parse_args())
