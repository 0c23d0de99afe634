"""Score a window of messages with the deployed model.

Without a window, the run's scheduled start determines it; without a source, params.yaml says where its messages are. The
messages that the endpoint answered in the window are part of it. With the source -, Prefect is not involved: each line of
standard input is a message, and each line of standard output a JSON object.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.events import emit_event
from prefect.runtime import flow_run

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.printable import LONGEST_TITLE, one_line
from ballast.io.secret_urls import add_secret_url
from ballast.io.urls import SECRET_URLS, public_url, refusal, secrets_in
from flows.commands import run_with_retries, stopping_commands
from flows.failures import readable_errors
from flows.settings import PARAMS, scoring, window_name

STAGE = [sys.executable, "-m", "stages.production.score"]
SETTING = "production.score.source"
ANSWERED = Path("production/answered")


def window_of(source: str | None, window: str | None, start: datetime) -> tuple[str, str]:
    """The source and window of a run with a scheduled start; params.yaml supplies what is not given."""
    window = window or window_name(start)
    if source is None:
        source = scoring()["source"].replace("{window}", window)
        for key, url in secrets_in({SETTING: scoring()["source"]}).items():
            raise UserError(f"{PARAMS}: {refusal(key, url)}")
    return source, window


def only_answered(source: str, window: str) -> bool:
    """Whether the endpoint answered messages in a window, and there is no local file with more."""
    return "://" not in source and not Path(source).exists() and (ANSWERED / f"{window}.sqlite").exists()


def no_secrets(source: str | None) -> None:
    """Raise UserError for a URL with secrets: Prefect stores parameters, and every user of a machine can see its commands."""
    if source is not None and (public := public_url(source)) != source:
        raise UserError(
            f"source is a URL with user info, a query or a fragment, and Prefect stores parameters; use {public} and put the"
            f" full URL into the environment variable {SECRET_URLS}"
        )


def run_name() -> str:
    """The name of a run, from its window."""
    parameters = flow_run.parameters
    start = flow_run.scheduled_start_time or datetime.now(UTC)
    return one_line(f"score: {window_of(parameters.get('source') or '-', parameters.get('window'), start)[1]}", LONGEST_TITLE)


@flow(name="score", flow_run_name=run_name)
def score(source: str | None = None, window: str | None = None, announce: bool = True) -> None:
    """Score a window; with `announce`, emit `window.scored`, which starts the deployment of watch.

    Raises StageFailed, and UserError for invalid settings.
    """
    no_secrets(source)
    configured, window = window_of(source, window, flow_run.scheduled_start_time or datetime.now(UTC))
    sources = [] if source is None and only_answered(configured, window) else ["--", configured]
    with stopping_commands():
        run_with_retries("score", [*STAGE, "--window", window, *sources], get_run_logger().info)
    if announce:
        emit_event("window.scored", {"prefect.resource.id": f"ballast.window.{window}"}, payload={"window": window})


def main(source: str | None, window: str | None) -> None:
    if source == "-":
        os.execv(STAGE[0], [*STAGE, "-", *([] if window is None else ["--window", window])])
    with readable_errors():
        score(source and add_secret_url(source), window)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a file, a folder, a URL such as s3://, or - for standard input"
    )
    arguments.add_argument("--window", metavar="NAME", help="name of the window, and of the file with its scores")
    run(main, arguments.parse_args())
