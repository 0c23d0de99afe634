"""Run production on this machine until Ctrl-C: a Prefect server, a worker, and the deployments of infra/prefect.yaml.

The server keeps its SQLite file in production/prefect, or its tables where PREFECT_SERVER_DATABASE_CONNECTION_URL says. With
PREFECT_API_URL no server is started: the worker and the deployments go to that one. The server asks every request for the auth
string in production/prefect/auth_string, or for the one in PREFECT_SERVER_API_AUTH_STRING.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
from prefect.client.orchestration import PrefectClient, get_client
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings

from ballast.cli import parser, run
from ballast.exceptions import UserError
from flows.failures import explained_api_errors
from flows.prefect_server.auth import (
    ADDRESS_FILE,
    ANY_ADDRESS,
    AUTH_FILE,
    CLIENT,
    LOCK_FILE,
    LOOPBACK,
    SERVER,
    client_settings,
    configured_auth_string,
    host_names,
    make_private,
    open_private,
    server_home,
    server_settings,
    stored_auth_string,
    url_host,
    write_private,
)
from flows.prefect_server.secured_environment import OWN
from flows.prefect_server.work_pool import DEPLOYMENTS, POOL, TEMPLATE, deploy, prepare, table
from flows.prefect_server.zombie_runs import restart_monitoring

START_SECONDS = 180.0
# Twice what a flow gives its commands to end, and time to tell the server.
STOP_SECONDS = 30.0
# A service that ends soon after its start is started again ever later.
SETTLED_SECONDS, LONGEST_DELAY_SECONDS = 60.0, 60.0
# What worker and runs need not know: its password for its tables, and what it asks for by a name of its own.
OF_THE_SERVER = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_", SERVER)
# Marks all processes that descend from ours, also those whose own parent was killed.
MARK = "BALLAST_SERVE"


@dataclass
class Service:
    """A command that is to run all the time."""

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
        """Start it in a process group of its own, so that Ctrl-C reaches us alone and we end things in order."""
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
                # The lock is held as long as any of the processes that share it lives.
                pass_fds=() if self.lock is None else (self.lock,),
            )
        finally:
            if output:
                output.close()
        self.started, self.due = time.monotonic(), None

    def keep(self) -> bool:
        """Start it again when it has ended and its time has come; say whether it was started."""
        now = time.monotonic()
        if self.due is None and self.process is not None and (code := self.process.poll()) is not None:
            self.delay = 1.0 if now - self.started > SETTLED_SECONDS else min(2 * self.delay, LONGEST_DELAY_SECONDS)
            self.due = now + self.delay
            say(f"the {self.name} ended with exit code {code}; it is started again in {self.delay:.0f} s")
        if self.due is None or now < self.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """End it; kill it when it does not end in time."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def say(line: str) -> None:
    """A line to the terminal, among those of the worker."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def alone(home: Path) -> Iterator[int]:
    """Hold the lock of a server's home and yield its file descriptor; raises UserError when a process has it."""
    make_private(home)
    with open(home / LOCK_FILE, "a+", encoding="utf-8", opener=open_private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            alive = [line for line in lock.read().splitlines() if psutil.pid_exists(int(line.split()[-1]))]
            raise UserError(f"{home}: already served ({', '.join(alive) or 'starting'}); end that first") from None
        lock.truncate(0)
        yield lock.fileno()


def note(home: Path | None, services: Sequence[Service]) -> None:
    """Write down which processes serve from a home, for who finds its lock taken."""
    if home is None:
        return
    lines = [f"serve {os.getpid()}"] + [f"{each.name} {each.process.pid}" for each in services if each.process]
    (home / LOCK_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_port(host: str, port: int) -> None:
    """Raise UserError when a port cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another with --port") from error


async def ready(client: PrefectClient, server: Service | None) -> None:
    """Wait until the server answers; raises UserError when it ends or does not in time."""
    deadline = time.monotonic() + START_SECONDS
    while (problem := await client.api_healthcheck()) is not None:
        if server is not None and server.process is not None and server.process.poll() is not None:
            raise UserError(f"the server ended with exit code {server.process.returncode}; {server.output} says why")
        if server is None or time.monotonic() > deadline:
            raise UserError(f"no Prefect server answers at {client.api_url}: {problem}")
        await asyncio.sleep(0.3)


async def begin(server: Service | None, environment: Mapping[str, str], login: str) -> None:
    """Wait for the server and put everything there."""
    async with get_client() as client:
        await ready(client, server)
        await prepare(client)
        await asyncio.to_thread(deploy, environment)
        await restart_monitoring(client)
        say(f"Prefect: {str(client.api_url).rstrip('/').removesuffix('/api')}\n{login}")
        say("\n".join(await table(client)))


def stop(services: Sequence[Service], mark: str) -> None:
    """End the running flows, then worker and server, so that the server hears how they ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    *servers, worker = services
    # First of all: asked to end, a worker kills its runs, which then tell nobody; asked themselves, they end their commands.
    runs = [process for process in marked(mark) if is_run(process)]
    for each in runs:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    psutil.wait_procs(runs, STOP_SECONDS)
    for service in (worker, *servers):
        service.stop()
    for left in marked(mark):
        with suppress(psutil.NoSuchProcess):
            left.kill()


def is_run(process: psutil.Process) -> bool:
    """Whether a process is Prefect's around a flow, before or after it fetched its code."""
    try:
        return any(part.startswith(("prefect.engine", "prefect.runner")) for part in process.cmdline())
    except psutil.Error:
        return False


def marked(mark: str) -> list[psutil.Process]:
    """All other processes that carry our mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def interrupt(number: int, frame: object) -> None:
    """What asks us to end does what Ctrl-C does."""
    raise KeyboardInterrupt


def main(host: str, port: int, name: Sequence[str]) -> None:
    for needed in (DEPLOYMENTS, TEMPLATE):
        if not needed.is_file():
            raise UserError(f"{needed}: no such file; start this in the root of the repository")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    mark = uuid4().hex
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    common = {MARK: mark, "PATH": path, "BALLAST_ROOT": str(Path.cwd())}
    worker = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--install-policy", "never"]
    if PREFECT_API_URL.value():
        environment = {**os.environ, **common}
        login = f"Log in with its auth string, if it has one; here that is {CLIENT}."
        keep([Service("worker", worker, environment)], None, environment, mark, login)
        return
    forget_own_server()
    check_port(host, port)
    home = server_home()
    with alone(home) as lock:
        reached = f"http://{'127.0.0.1' if host in ANY_ADDRESS else url_host(host)}:{port}"
        word, login = auth_string(home, f"{reached}/api")
        settings = get_current_settings()
        client = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"{reached}/api", **client_settings(settings, word)}
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_SERVER)} | common | client
        )
        guarded = {**os.environ, **environment} | server_settings(
            settings, word, [f"http://{each}:{port}" for each in host_names(host, name)]
        )
        services = [own_server(host, port, name, home, lock, guarded), Service("worker", worker, environment, lock)]
        if url_host(host) not in LOOPBACK:
            say(f"warning: {host} is not only this machine, and nothing is encrypted; infra/README.md has a tunnel and a proxy")
        with temporary_settings({PREFECT_API_URL: f"{reached}/api", PREFECT_API_AUTH_STRING: word}):
            keep(services, home, environment, mark, login)


def own_server(host: str, port: int, names: Sequence[str], home: Path, lock: int, environment: Mapping[str, str]) -> Service:
    """The server, whose files are for its owner only."""
    command = [sys.executable, "-m", "flows.server", "--host", host, "--port", str(port)]
    command += [part for each in names for part in ("--name", each)]
    pages = {
        # Prefect would put a copy of its pages among the installed packages, where one port's would replace another's.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),
        # Wherever they are shown, through a tunnel or a proxy too, they ask the server that they come from.
        "PREFECT_SERVER_UI_API_URL": "/api",
    }
    return Service("server", command, pages | dict(environment), lock, home / "server.log", umask=0o077)


def auth_string(home: Path, url: str) -> tuple[str, str]:
    """The auth string of the server at an address, which a user has set or its home keeps, and how one logs in with it."""
    # A flow that is started by hand takes the string from its file, for this address only.
    (home / ADDRESS_FILE).unlink(missing_ok=True)
    if (given := configured_auth_string(get_current_settings())) is not None:
        return given, f"Log in with the auth string that you set as {SERVER} or {CLIENT}."
    word = stored_auth_string(home)
    write_private(home / ADDRESS_FILE, url)
    return word, f"Log in with the auth string that `cat {home / AUTH_FILE}` shows."


def forget_own_server() -> None:
    """Take back what was set for a server that Prefect would start for a run: this one has settings of its own."""
    for name in OWN:
        os.environ.pop(name, None)
    refresh_global_settings_context()


def keep(services: Sequence[Service], home: Path | None, environment: Mapping[str, str], mark: str, login: str) -> None:
    """Start the services, deploy, and keep them running until Ctrl-C."""
    *servers, worker = services
    server = servers[0] if servers else None
    try:
        if server is not None:
            server.start()
            note(home, services)
        with explained_api_errors():
            asyncio.run(begin(server, environment, login))
        worker.start()
        note(home, services)
        say("Ctrl-C ends it.")
        while True:
            time.sleep(1.0)
            started = [service.keep() for service in services]
            if any(started):
                note(home, services)
    except KeyboardInterrupt:
        say("ending")
    finally:
        stop(services, mark)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--host", default="127.0.0.1", help="the address that the server listens on (default 127.0.0.1)")
    arguments.add_argument("--port", type=int, default=4200, help="the server's port (default 4200)")
    arguments.add_argument(
        "--name", action="append", default=[], help="another host name of the server, as a proxy passes it on"
    )
    run(main, arguments.parse_args())
