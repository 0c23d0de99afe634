"""Server, worker and endpoint as supervised child processes: restarted when they end, stopped in order."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ballast.exceptions import UserError
from flows.prefect_server.auth import LOCK_FILE, make_private, open_private

# Twice the time that a flow gives its commands to end, and time to report to the server.
STOP_SECONDS = 30.0
# A service that ends soon after its start is restarted with growing delays.
SETTLED_SECONDS, MAX_DELAY_SECONDS = 60.0, 60.0
# Environment variable that marks all our descendants, even if their parent was killed.
MARK = "BALLAST_SERVE"


@dataclass
class Service:
    """A command that must run all the time.

    lock : file descriptor of the home's lock, which the process shares.
    output : file for its output; None for ours.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    lock: int | None = None
    output: Path | None = None
    umask: int = -1
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    delay: float = field(default=0.5, init=False)
    due: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process in its own process group, so that Ctrl-C only reaches us and we stop the services in order."""
        output = open(self.output, "ab", opener=open_private) if self.output else None  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
                umask=self.umask,
                # The lock is held until the last process that shares it ends.
                pass_fds=() if self.lock is None else (self.lock,),
            )
        finally:
            if output:
                output.close()
        self.started, self.due = time.monotonic(), None

    def restart_if_due(self) -> bool:
        """Restart a process that has ended, after a delay; returns whether it was started."""
        now = time.monotonic()
        if self.due is None and self.process is not None and (code := self.process.poll()) is not None:
            self.delay = 1.0 if now - self.started > SETTLED_SECONDS else min(2 * self.delay, MAX_DELAY_SECONDS)
            self.due = now + self.delay
            show(f"the {self.name} ended with exit code {code}; restarting it in {self.delay:.0f} s")
        if self.due is None or now < self.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Terminate the process; kill it if it does not end in time."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def show(line: str) -> None:
    """Print a line to the terminal, among those of the worker."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def locked_home(home: Path) -> Iterator[int]:
    """Hold the lock of a server's home and yield its file descriptor; raises UserError if another process holds it."""
    make_private(home)
    with open(home / LOCK_FILE, "a+", encoding="utf-8", opener=open_private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            alive = [line for line in lock.read().splitlines() if psutil.pid_exists(int(line.split()[-1]))]
            raise UserError(
                f"{home}: already in use by {', '.join(alive) or 'a server that is starting'}; end it first"
            ) from None
        lock.truncate(0)
        yield lock.fileno()


def record_processes(home: Path | None, services: Sequence[Service]) -> None:
    """Write the processes of a home into its lock file, for commands that find the lock taken."""
    if home is None:
        return
    lines = [f"serve {os.getpid()}"] + [f"{service.name} {service.process.pid}" for service in services if service.process]
    (home / LOCK_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def stop_services(services: Sequence[Service], mark: str) -> None:
    """End the running flows, then the services, the server last, so that it learns how the flows ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # First, because a worker that is terminated kills its runs, which then report nothing; a terminated run ends its commands.
    runs = [process for process in marked_processes(mark) if is_run(process)]
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.terminate()
    psutil.wait_procs(runs, STOP_SECONDS)
    for service in reversed(services):
        service.stop()
    for left in marked_processes(mark):
        with suppress(psutil.NoSuchProcess):
            left.kill()


def is_run(process: psutil.Process) -> bool:
    """Whether a process is Prefect's process of a flow run, before or after it loads the flow."""
    try:
        return any(part.startswith(("prefect.engine", "prefect.runner")) for part in process.cmdline())
    except psutil.Error:
        return False


def marked_processes(mark: str) -> list[psutil.Process]:
    """All other processes with our mark."""
    marked = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                marked.append(process)
    return marked
