"""Start commands as children of a flow: output goes line by line to its log, the last lines into a failure."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path

from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
from prefect.settings import PREFECT_API_URL

import flows.prefect_server.secured_environment  # noqa: F401
from ballast.exceptions import TEMPORARY, UserError
from ballast.io.printable import one_line, printable
from ballast.io.urls import redact

LAST_LINES = 20
# Characters of a line of those.
MAX_LINE_CHARACTERS = 2000
GRACE_SECONDS = 5.0
# From an interrupt to the end of a flow whose server does not answer; Prefect's own farewell takes a few.
LEAVE_SECONDS = 30.0
INTERRUPTED = "error: interrupted; what is done is kept, the same command goes on from there"
# DVC's own code says only that something failed; its last line says which stage and with which code.
DVC_FAILURE = re.compile(r"^ERROR: failed to reproduce '(?P<stage>[^']+)'(: failed to run: .*, exited with (?P<code>-?\d+))?")
DVC_FAREWELL = "Having any troubles?"
# Nobody but the kernel, out of memory, sends SIGKILL: stop_commands begins with SIGTERM. A shell adds 128.
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
# How DVC says that somebody else is at the same files; its own waiting is for shorter locks.
BUSY = "is busy, it is being blocked by"

# How often a source that was out of reach is read, and how long after.
TRIES, TRY_AGAIN_SECONDS = 3, 30.0
LOGS_OF_RUNS = ("prefect.flow_runs", "prefect.task_runs")
# A killed flow's commands would go on, in the way of those of the next run.
LIFELINE = [sys.executable, "-IS", str(Path(__file__).with_name("die_with_parent.py"))]

_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_own_groups = True
# That no command is to begin, and none to be waited for: this process is about to end.
stopped = threading.Event()


class StageFailed(Exception):  # noqa: N818
    """A stage's command failed: `headline` is one line for a terminal, `str` adds the last lines of the output."""

    def __init__(self, stage: str, code: int, lines: Sequence[str]) -> None:
        super().__init__(stage, code, lines)
        self.stage, self.code, self.lines = stage, code, lines

    @property
    def headline(self) -> str:
        """The stage, its exit code and the line of its output that says why."""
        if self.code in KILLED:
            return f"stage {self.stage} was killed with exit code {self.code}, most often for want of memory"
        errors = [line for line in self.lines if line.startswith("error: ")]
        own = [line for line in self.lines if not DVC_FAILURE.match(line) and not line.startswith(DVC_FAREWELL)]
        reason = (errors or own or list(self.lines) or ["it printed nothing"])[-1].removeprefix("error: ")
        return f"stage {self.stage} failed with exit code {self.code}: {reason}"

    @property
    def transient(self) -> bool:
        """Whether the same command may succeed in a while: killed for memory, a source was out of reach, or files in use."""
        busy = any(BUSY in line for line in self.lines if line.startswith("ERROR: "))
        return busy or self.code in KILLED or self.code == TEMPORARY

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.lines])

    def __repr__(self) -> str:
        return f"StageFailed({self.headline!r})"


def run_command(
    stage: str,
    command: Sequence[str],
    log: Callable[[str], object],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a command of this environment to its end, in another folder if one is given; raises StageFailed when it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    child = _start(command, {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})}, folder)
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        with child:
            try:
                for raw in child.stdout or ():
                    # Of a progress bar, which rewrites its line, the last state is enough.
                    line = redact(raw.decode(errors="replace").rstrip().rpartition("\r")[2])
                    if line:
                        # Whatever the command is, DVC included: PostgreSQL takes no NUL, a terminal obeys what it is shown.
                        line = printable(line, lines=True)
                        last.append(line if len(line) <= MAX_LINE_CHARACTERS else one_line(line, MAX_LINE_CHARACTERS))
                        log(line)
            except (KeyboardInterrupt, SystemExit, TerminationSignal):
                # To leave the block would be to wait for the child. Ray ends a task whose pipeline is gone by SystemExit.
                stop_commands()
                raise
        code = child.returncode
    finally:
        _running.discard(child)
    if code:
        told = next((found for line in reversed(last) if (found := DVC_FAILURE.match(line))), None)
        if told is not None:
            stage, code = told["stage"], int(told["code"] or code)
        raise StageFailed(stage, code, list(last))


def run_with_retries(
    stage: str, command: Sequence[str], log: Callable[[str], object], seconds: float = TRY_AGAIN_SECONDS
) -> None:
    """Run a command, and a few times more while what it reads is out of reach for a moment; raises StageFailed."""
    for tries_left in reversed(range(TRIES)):
        try:
            return run_command(stage, command, log)
        except StageFailed as failure:
            if failure.code != TEMPORARY or not tries_left or stopped.is_set():
                raise
            log(f"{failure.headline}; it is tried again in {seconds:g} s")
        stopped.wait(seconds)


def _start(command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> subprocess.Popen[bytes]:
    """Start a command in a new process group, or in ours after `share_process_group`; raises StageFailed if the flow stops."""
    with _starting:
        if stopped.is_set():
            raise StageFailed(command[0], -signal.SIGTERM, ["the flow was stopped before this began"])
        # Ray ends the group that this process and the command share.
        with_lifeline = [*LIFELINE, str(_lifeline()), *command] if _own_groups else command
        child = subprocess.Popen(
            with_lifeline,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=_own_groups,
            pass_fds=[_lifeline()] if _own_groups else [],
        )
        _running.add(child)
    return child


@cache
def _lifeline() -> int:
    """The reading end of a pipe that closes when this process is gone, however it ends: nobody else has the other end."""
    return os.pipe()[0]


@contextmanager
def stopping_commands(*, within: bool = False) -> Iterator[None]:
    """Around a flow's body: Ctrl-C and a cancellation end its commands too.

    within : of a flow within another one, which is the one that ends this process.
    """
    escape_logs()
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as interrupt:
        code = 128 + getattr(interrupt, "signal", signal.SIGINT)
        # Prefect tells its server how the run ended, and would wait for one that does not answer.
        overdue = threading.Timer(LEAVE_SECONDS, leave, [code])
        overdue.daemon = True
        overdue.start()
        stop_commands()
        if not within and not PREFECT_API_URL.value():
            # Here, because loading the server takes seconds that a flow with a server elsewhere need not spend.
            from prefect.server.api.server import SubprocessASGIServer

            # Nobody is left to tell: Ctrl-C has ended the run's own server too, and Prefect would call it for two minutes;
            # after SIGTERM it would stay behind.
            SubprocessASGIServer().stop()
            leave(code)
        raise


def leave(code: int) -> None:
    """End this process at once."""
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(code)


def share_process_group() -> None:
    """Commands stay in this process's group from now on, and end with it: Ray kills the group of a worker that ends."""
    global _own_groups
    _own_groups = False


def stop_commands() -> None:
    """End all running commands with their own children, and start none again: this process is about to end.

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


@contextmanager
def single_instance(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock that ends with this process; when another one has it, wait for its end or raise UserError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another process is at it; wait until it has ended") from error
        yield


@contextmanager
def readable() -> Iterator[None]:
    """Around a flow's main: a failed stage's last lines come last on standard error; raises UserError with the headline."""
    hide_tracebacks()
    try:
        with understood():
            yield
    except StageFailed as failure:
        print(*(f"  {line}" for line in failure.lines), sep="\n", file=sys.stderr)
        raise UserError(failure.headline) from failure
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        # While the process ends, Prefect says farewell to its server and events; our line is to be the last.
        logging.disable(logging.WARNING)


@contextmanager
def understood() -> Iterator[None]:
    """Raise UserError in the place of a Prefect server's answer that it does not know us."""
    try:
        yield
    except PrefectHTTPStatusError as error:
        url, status = PREFECT_API_URL.value(), error.response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            raise UserError(
                f"{url}: the Prefect server does not accept our auth string; set PREFECT_API_AUTH_STRING to its user:password"
                " (that of `make serve` is in production/prefect/auth_string of its checkout)"
            ) from error
        if status == HTTPStatus.FORBIDDEN:
            raise UserError(
                f"{url}: the Prefect server refuses us ({error.response.text.strip()[:200]});"
                " PREFECT_CLIENT_CSRF_SUPPORT_ENABLED must not be false where it asks for CSRF tokens"
            ) from error
        raise


def hide_tracebacks() -> None:
    """Prefect logs errors that say themselves what is wrong without a traceback, in this process."""
    for name in LOGS_OF_RUNS:
        logging.getLogger(name).addFilter(_without_traceback)


def escape_logs() -> None:
    """Prefect logs what a terminal or a database cannot take as its escape, in this process."""
    for name in LOGS_OF_RUNS:
        logging.getLogger(name).addFilter(_printable)


def _printable(record: logging.LogRecord) -> bool:
    """A log record has a printable message."""
    record.msg, record.args = printable(record.getMessage(), lines=True), ()
    return True


def _without_traceback(record: logging.LogRecord) -> bool:
    """A log record of an error that says itself what is wrong loses its traceback."""
    if record.exc_info and isinstance(record.exc_info[1], StageFailed | UserError):
        record.exc_info = None
    return True
