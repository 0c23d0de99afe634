"""Run commands as child processes of a flow: the output goes line by line to the log, results come back as JSON files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL

import ballast.io.digest as digest
import flows.prefect_server.secured_environment  # noqa: F401
from ballast.exceptions import TEMPORARY, UserError
from ballast.io.printable import one_line, printable
from ballast.io.urls import redact
from flows.failures import StageFailed, escape_logs, exit_now, printable_error
from flows.recovery.dvc_processes import DVC

LAST_LINES = 20
MAX_LINE_CHARACTERS = 2000
GRACE_SECONDS = 5.0
# Time from an interrupt to the end of a flow with an unresponsive server; Prefect's own shutdown takes a few seconds.
LEAVE_SECONDS = 30.0
# Attempts to read a source that is temporarily unavailable, and the time between them.
TRIES, TRY_AGAIN_SECONDS = 3, 30.0
FOLDER = Path(__file__).parent
# Without it, the commands of a killed flow continue and block those of the next run.
DIE_WITH_PARENT = [sys.executable, "-IS", str(FOLDER / "die_with_parent.py")]

Log = Callable[[str], object]

_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_own_groups = True
# Set when this process is about to end: start no command and wait for none.
stopped = threading.Event()


def run_command(
    stage: str,
    command: Sequence[str],
    log: Log,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a command in this Python environment, by default in the current folder; raises StageFailed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    child = _start(command, {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})}, folder)
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        with child:
            try:
                for raw in child.stdout or ():
                    if line := printable_line(raw):
                        last.append(line if len(line) <= MAX_LINE_CHARACTERS else one_line(line, MAX_LINE_CHARACTERS))
                        log(line)
            except (KeyboardInterrupt, SystemExit, TerminationSignal):
                # Leaving the block would wait for the child. Ray ends a task without a pipeline by SystemExit.
                stop_commands()
                raise
        code = child.returncode
    finally:
        _running.discard(child)
    if code:
        raise StageFailed(stage, code, list(last))


def printable_line(raw: bytes) -> str:
    """A line of output, escaped and without secrets of URLs; of a progress bar the last state."""
    # PostgreSQL rejects NUL, and a terminal obeys control characters.
    return printable(redact(raw.decode(errors="replace").rstrip().rpartition("\r")[2]), lines=True)


def run_for_result(stage: str, command: Sequence[str], log: Log) -> dict[str, Any]:
    """Run a command with `--result FILE` and return the JSON object that it writes there.

    Raises StageFailed, and UserError if the command writes no result.
    """
    with tempfile.TemporaryDirectory(prefix="ballast-") as folder:
        path = Path(folder) / "result.json"
        run_command(stage, [*command, "--result", str(path)], log)
        if (result := read_result(path)) is None:
            raise UserError(f"{' '.join(command)}: wrote no result; expected a JSON object in the file of --result")
        return result


def run_dvc(
    stage: str,
    arguments: Sequence[str],
    log: Log,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> list[str]:
    """Run a DVC command and return the stages that ran; raises StageFailed with the stage and exit code of the failed command.

    The exit code is 75, and the failure transient, if another process uses the same files.
    """
    with tempfile.TemporaryDirectory(prefix="ballast-") as temporary:
        path = Path(temporary) / "result.json"
        try:
            run_command(stage, [*DVC, "--report", str(path), "--wait-for-lock", *arguments], log, environment, folder)
        except StageFailed as failure:
            # DVC itself was killed if it reports nothing.
            if (report := read_result(path)) is None:
                raise
            stage, code = report["failed_stage"] or stage, report["exit_code"]
            raise StageFailed(stage, code, failure.lines, report["missing"]) from failure
        return list((read_result(path) or {"ran": []})["ran"])


def read_result(path: Path) -> dict[str, Any] | None:
    """The JSON object in a result file, without its digest, or None if there is none."""
    if not path.exists():
        return None
    return {key: value for key, value in json.loads(path.read_bytes()).items() if key != digest.KEY}


def run_with_retries(stage: str, command: Sequence[str], log: Log, seconds: float = TRY_AGAIN_SECONDS) -> None:
    """Run a command, up to three times if its exit code says that the failure is temporary; raises StageFailed."""
    for tries_left in reversed(range(TRIES)):
        try:
            return run_command(stage, command, log)
        except StageFailed as failure:
            if failure.code != TEMPORARY or not tries_left or stopped.is_set():
                raise
            log(f"{failure.headline}; trying again in {seconds:g} s")
        stopped.wait(seconds)


def _start(command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> subprocess.Popen[bytes]:
    """Start a command in a new process group, or in ours after `share_process_group`; raises StageFailed if the flow stops."""
    with _starting:
        if stopped.is_set():
            raise StageFailed(command[0], -signal.SIGTERM, ["the flow was stopped before this command started"])
        # In a shared group, Ray ends the command.
        full_command = [*DIE_WITH_PARENT, str(_parent_pipe()), *command] if _own_groups else command
        child = subprocess.Popen(
            full_command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=_own_groups,
            pass_fds=[_parent_pipe()] if _own_groups else [],
        )
        _running.add(child)
    return child


@cache
def _parent_pipe() -> int:
    """The read end of a pipe that closes when this process ends for any reason: no other process has the write end."""
    return os.pipe()[0]


@contextmanager
def stopping_commands(*, within: bool = False) -> Iterator[None]:
    """Wrap the body of a flow: Ctrl-C and a cancellation also end its commands, and errors are printable.

    within : the flow runs within another one, which ends the process.
    """
    escape_logs()
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as interrupt:
        code = 128 + getattr(interrupt, "signal", signal.SIGINT)
        # Prefect reports the end of the run to its server and would wait for an unresponsive one.
        overdue = threading.Timer(LEAVE_SECONDS, exit_now, [code])
        overdue.daemon = True
        overdue.start()
        stop_commands()
        if not within and not PREFECT_API_URL.value():
            # Slow import, needed only for a temporary server.
            from prefect.server.api.server import SubprocessASGIServer

            # Ctrl-C also ends the run's temporary server, and Prefect would call it for two minutes. After SIGTERM the server
            # would stay.
            SubprocessASGIServer().stop()
            exit_now(code)
        raise
    except Exception as error:
        if (clean := printable_error(error)) is error:
            raise
        raise clean from error


def share_process_group() -> None:
    """Start commands in this process's group from now on: Ray kills the group of a worker that ends."""
    global _own_groups
    _own_groups = False


def stop_commands() -> None:
    """End all running commands and their children, and start no more: this process is about to end.

    Ending only `dvc` would leave its training running.
    """
    with _starting:
        stopped.set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in list(_running):
            with suppress(ProcessLookupError):
                (os.killpg if _own_groups else os.kill)(child.pid, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(child.poll() is None for child in list(_running)) and time.monotonic() < deadline:
            time.sleep(0.05)
