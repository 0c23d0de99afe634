"""Score a window of messages with the deployed model.

Without a source and a window the run's scheduled start names the window, and params.yaml says where its messages are. With the
source - nothing goes through Prefect: one message a line from standard input, one JSON object a line to standard output.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ballast.command import parser, run
from ballast.errors import UserError
from flows.commands import readable, run_command, stopping_commands

PARAMS = Path("params.yaml")
STAGE = [sys.executable, "-m", "stages.score"]


def settings() -> dict[str, Any]:
    """What `production.score` of params.yaml says; the stage checks the file."""
    try:
        return dict(YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))["production"]["score"])
    except FileNotFoundError as error:
        raise UserError(f"{PARAMS}: no such file; run from the repository's root") from error
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{PARAMS}: production.score cannot be read: {' '.join(str(error).split())}") from error


def window_of(source: str | None, window: str | None, start: datetime) -> tuple[str, str]:
    """Source and window of a run that was to start at a time; params.yaml says what is not given."""
    window = window or start.strftime(settings()["window"])
    return source or settings()["source"].replace("{window}", window), window


def run_name() -> str:
    """The name of a run: its window."""
    parameters = flow_run.parameters
    start = flow_run.scheduled_start_time or datetime.now(UTC)
    return f"score: {window_of(parameters.get('source') or '-', parameters.get('window'), start)[1]}"


@flow(name="score", flow_run_name=run_name)
def score(source: str | None = None, window: str | None = None) -> None:
    """Score a window; raises StageFailed, and UserError for settings that cannot be read."""
    source, window = window_of(source, window, flow_run.scheduled_start_time or datetime.now(UTC))
    with stopping_commands():
        run_command("score", [*STAGE, "--window", window, "--", source], get_run_logger().info)


def main(source: str | None, window: str | None) -> None:
    if source == "-":
        os.execv(STAGE[0], [*STAGE, "-", *([] if window is None else ["--window", window])])
    with readable():
        score(source, window)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a file, a folder or a URL such as s3://; - is standard input"
    )
    arguments.add_argument("--window", metavar="NAME", help="the name of the file with the scores")
    run(main, arguments.parse_args())
