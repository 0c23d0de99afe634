"""Run production on this machine until Ctrl-C: a Prefect server, a worker, and the deployments of infra/prefect.yaml.

The server keeps its SQLite file in production/prefect, or its tables where PREFECT_SERVER_DATABASE_CONNECTION_URL says. With
PREFECT_API_URL no server is started: the worker and the deployments go to that one.
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
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from ballast.command import parser, run
from ballast.errors import UserError
from flows.lost_runs import in_state, lost_runs, watch_anew

DEPLOYMENTS = Path("infra/prefect.yaml")
HOME = Path("production/prefect")
POOL = "ballast"
# How many runs of a queue may go on at a time: after days without a server all that were due come at once.
QUEUES = {"default": 2, "scoring": 2, "training": 1}
START_SECONDS = 180.0
# Twice what a flow gives its commands to end, and time to tell the server.
STOP_SECONDS = 30.0
# A service that ends soon after its start is started again ever later.
SETTLED_SECONDS, LONGEST_DELAY_SECONDS = 60.0, 60.0
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
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    delay: float = field(default=0.5, init=False)
    due: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it in a process group of its own, so that Ctrl-C reaches us alone and we end things in order."""
        output = self.output.open("ab") if self.output else None
        try:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
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
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("a+", encoding="utf-8") as lock:
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
    (home / "serve.lock").write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_port(host: str, port: int) -> None:
    """Raise UserError when a port cannot be listened on."""
    with socket.socket() as probe:
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


async def prepare(client: PrefectClient) -> None:
    """Create what is missing of the work pool, its queues and the automation that finds lost runs."""
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    for name, limit in QUEUES.items():
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=POOL)
        if queue.concurrency_limit != limit:
            await client.update_work_queue(queue.id, concurrency_limit=limit)
    for automation in lost_runs():
        if not await client.read_automations_by_name(automation.name):
            await client.create_automation(automation)


def deploy(environment: Mapping[str, str]) -> None:
    """Deploy all of infra/prefect.yaml; raises UserError with what Prefect says."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    # Prefect would write our own path where the worker is to put its own.
    here = {name: value for name, value in environment.items() if name != "BALLAST_ROOT"}
    done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError(f"{DEPLOYMENTS}: not deployed: {(lines or ['no reason given'])[-1]}")


async def table(client: PrefectClient) -> list[str]:
    """A line for each deployment: its queue, its schedule, and when it runs next."""
    found = await client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])))
    lines = []
    for each in sorted(found, key=lambda each: each.name):
        active = [schedule for schedule in each.schedules if schedule.active]
        when = ", ".join(described(schedule.schedule) for schedule in active) or "by hand or by an event"
        following = await next_run(client, each) if active else ""
        lines.append(f"  {each.name:<10} {each.work_queue_name:<10} {when:<28} {following}")
    return [line.rstrip() for line in lines]


def described(schedule: object) -> str:
    """A schedule in a few words."""
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    return f"every {getattr(schedule, 'interval', schedule)}"


async def next_run(client: PrefectClient, deployment: DeploymentResponse) -> str:
    """When a scheduled deployment runs next; the scheduler takes some seconds to say so."""
    for _ in range(50):
        runs = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=in_state(StateType.SCHEDULED),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=1,
        )
        if runs and runs[0].expected_start_time:
            return f"next {runs[0].expected_start_time:%Y-%m-%d %H:%M} UTC"
        await asyncio.sleep(0.3)
    return "next run not known yet"


async def begin(server: Service | None, environment: Mapping[str, str]) -> None:
    """Wait for the server and put everything there."""
    async with get_client() as client:
        await ready(client, server)
        await prepare(client)
        await asyncio.to_thread(deploy, environment)
        await watch_anew(client)
        say(f"Prefect: {str(client.api_url).rstrip('/').removesuffix('/api')}")
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


def main(host: str, port: int) -> None:
    if not DEPLOYMENTS.is_file():
        raise UserError(f"{DEPLOYMENTS}: no such file; start this in the root of the repository")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    mark = uuid4().hex
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {
        **os.environ,
        MARK: mark,
        "PATH": path,
        "BALLAST_ROOT": str(Path.cwd()),
    }
    worker = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--install-policy", "never"]
    if PREFECT_API_URL.value():
        keep([Service("worker", worker, environment)], None, environment, mark)
        return
    check_port(host, port)
    home = Path(os.environ.get("PREFECT_HOME") or HOME).expanduser().resolve()
    with alone(home) as lock:
        reached = "127.0.0.1" if host == "0.0.0.0" else host
        environment |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{reached}:{port}/api"}
        # Prefect would put a copy of its pages among the installed packages, where one port's would replace another's.
        environment.setdefault("PREFECT_SERVER_UI_STATIC_DIRECTORY", str(home / "pages"))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--host", host, "--port", str(port)]
        services = [
            Service("server", command, environment, lock, home / "server.log"),
            Service("worker", worker, environment, lock),
        ]
        with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
            keep(services, home, environment, mark)


def keep(services: Sequence[Service], home: Path | None, environment: Mapping[str, str], mark: str) -> None:
    """Start the services, deploy, and keep them running until Ctrl-C."""
    *servers, worker = services
    server = servers[0] if servers else None
    try:
        if server is not None:
            server.start()
            note(home, services)
        asyncio.run(begin(server, environment))
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
    run(main, arguments.parse_args())
