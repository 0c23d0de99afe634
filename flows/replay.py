"""Replay traffic: draw windows of held-out messages at given shares of the rare class, and drive score and watch through them.

The labels of a window come one window later. A decision to retrain starts the deployment of retrain where a Prefect server
has one, and is waited for; without one it is carried out here.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from prefect import flow, get_client, get_run_logger
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from ballast.command import parser, run
from ballast.errors import UserError
from flows.commands import readable, run_command, stopping_commands
from flows.promote import promote
from flows.retrain import RETRAIN, decision_of, retrain
from flows.score import score
from flows.watch import watch

REPLAY, LABELS = Path("production/replay"), Path("production/labels")
DEPLOYMENT = "retrain/retrain"
PATIENCE_SECONDS = 3600.0


@flow(name="replay")
def replay(
    schedule: list[float], size: int = 1000, labelled: float = 0.5, seed: int = 0, source: str | None = None
) -> list[str]:
    """Deploy the selected model, then score and watch a window for each share; the decisions, in order.

    Parameters
    ----------
    schedule : share of the rare class in each window, between 0 and 1.
    size : messages of a window.
    labelled : share of a window's messages whose labels come one window later; 0 for none.
    source : a file of labelled messages; by default those of the data that were not trained on.
    """
    logger, decisions = get_run_logger(), list[str]()
    if not all(0 <= share <= 1 for share in schedule) or not 0 <= labelled <= 1 or size < 1:
        raise UserError("expected shares between 0 and 1, and at least one message in a window")
    options = ["--size", str(size), "--labelled", str(labelled), "--seed", str(seed)]
    options += [] if source is None else ["--source", source]
    with stopping_commands():
        shutil.rmtree(RETRAIN, ignore_errors=True)
        run_command("draw", ["python", "-m", "stages.draw", *options, *map(str, schedule)], logger.info)
        promote()
        before = None
        for path in sorted(REPLAY.glob("*.parquet")):
            if before is not None:
                deliver(before)
            score(str(path), path.stem)
            decisions.append(watch(path.stem))
            if decisions[-1] == "retrain":
                retrained(path.stem)
            before = path.stem
    logger.info("%s", "\n".join(f"{share:.2f}: {decision}" for share, decision in zip(schedule, decisions, strict=True)))
    return decisions


def deliver(window: str) -> None:
    """Put the labels of a window where the watch finds them."""
    labels = REPLAY / "labels" / f"{window}.csv"
    if labels.exists():
        LABELS.mkdir(parents=True, exist_ok=True)
        shutil.copy(labels, LABELS / labels.name)


def is_deployed() -> bool:
    """Whether a server has the deployment that the event of a shifted prior starts."""
    if not PREFECT_API_URL.value():
        return False
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return False
    return True


def retrained(window: str) -> None:
    """Wait for the retraining that the window's event started, or retrain here; raises UserError when none ends in an hour."""
    if not is_deployed():
        retrain(window)
        return
    get_run_logger().info("waiting for the deployment %s", DEPLOYMENT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not decision_of(RETRAIN / window):
        if time.monotonic() > deadline:
            raise UserError(f"no retraining for {window} ended within an hour; is a worker running?")
        time.sleep(1)


def main(schedule: str, size: int, labelled: float, seed: int, source: str | None) -> None:
    try:
        shares = [float(share) for share in schedule.split(",")]
    except ValueError as error:
        raise UserError(f"--schedule {schedule!r}: expected shares such as 0.13,0.40") from error
    with readable():
        decisions = replay(shares, size, labelled, seed, source)
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
