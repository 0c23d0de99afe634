"""A small repository with stand-ins for the flows of infra/prefect.yaml, and `flows.serve` running in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from tests.flow_fixtures import Server, eventually, free_port
from tests.project import ROOT, environment, yaml

PARAMETERS = {
    "pipeline": "",
    "score": "source: str | None = None, window: str | None = None",
    "watch": "window: str | None = None",
    "promote": "",
    "retrain": "window: str | None = None",
}
FLOW = '''
from prefect import flow, get_run_logger
from flows.commands import run_command, stopping_commands

@flow(name="{name}")
def {name}({parameters}) -> None:
    """Stand-in."""
    with stopping_commands():
        run_command("{name}", ["sh", "step.sh", "{name}", {window}], get_run_logger().info)
'''
# Notes where and as whom it runs; then does what the file of its name in `do` says.
STEP = """
echo "start $1 $2 in $PWD with $(command -v python)" >> steps.log
if [ -f "do/$1" ]; then . "./do/$1"; fi
echo "end $1 $2" >> steps.log
"""


@dataclass
class Served:
    """A running `flows.serve`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def server(self) -> Server:
        home = self.folder / "production/prefect"
        word = home / "auth_string"
        return Server(f"http://127.0.0.1:{self.port}/api", home, word.read_text().strip() if word.exists() else "")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The server's answer to one who knows the auth string."""

        def answer() -> httpx.Response | None:
            # On SQLite the server says 503 when two write at a moment; Prefect's own client asks again too.
            given = httpx.request(method, f"{self.server.url}/{path}", timeout=30, auth=self.server.login, **options)
            return given if given.status_code != httpx.codes.SERVICE_UNAVAILABLE else None

        return eventually(answer)

    @property
    def output(self) -> str:
        return (self.folder / "serve.log").read_text()

    @property
    def steps(self) -> str:
        log = self.folder / "steps.log"
        return log.read_text() if log.exists() else ""

    def pid(self, name: str) -> int:
        """The process of the server or the worker."""
        lock = self.folder / "production/prefect/serve.lock"

        def found() -> list[str]:
            # It may be being written.
            return [line for line in lock.read_text().splitlines() if line.startswith(f"{name} ")]

        return int(eventually(found)[0].split()[1])

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"deployments/name/{name}/{name}").json())

    def start(self, name: str, **parameters: Any) -> str:
        """Have a deployment run: the id of the run."""
        path = f"deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.ask("POST", path, json={"parameters": parameters}).raise_for_status().json()["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"flow_runs/{run}").json()["state"])

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow."""
        return self.server.all("flow_runs", flows={"name": {"any_": [flow]}})

    def ends(self, run: str, seconds: float = 600.0) -> str:
        """How a run ended."""

        def end() -> str:
            kind = str(self.state(run)["type"])
            return kind if kind in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else ""

        return eventually(end, seconds)

    def emit(self, event: str, labels: Mapping[str, str], **payload: Any) -> None:
        """Send an event as a flow would."""
        resource = {"prefect.resource.id": "ballast.window", **labels}
        moment = datetime.now(UTC).isoformat()
        sent = {"occurred": moment, "event": event, "resource": resource, "payload": payload, "id": str(uuid4())}
        self.ask("POST", "events", json=[sent]).raise_for_status()


def wait_for(served: Served, found: Callable[[], Any], seconds: float = 600.0) -> Any:
    """The first true answer while `flows.serve` lives."""

    def ask() -> Any:
        assert served.process.poll() is None, served.output
        return found()

    return eventually(ask, seconds)


def site(folder: Path) -> Path:
    """Make the repository: infra/prefect.yaml is the real one, the flows are stand-ins."""
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for name, parameters in PARAMETERS.items():
        window = "str(window)" if "window" in parameters else "'-'"
        (folder / f"flows/{name}.py").write_text(FLOW.format(name=name, parameters=parameters, window=window))
    (folder / "step.sh").write_text(STEP)
    (folder / "infra").mkdir()
    (folder / "do").mkdir()
    for name in ("prefect.yaml", "process-template.json"):
        shutil.copy(ROOT / "infra" / name, folder / "infra" / name)
    return folder


def every(folder: Path, name: str, seconds: int) -> None:
    """Have a deployment run every so many seconds."""
    path = folder / "infra/prefect.yaml"
    content = yaml.load(path)
    next(each for each in content["deployments"] if each["name"] == name)["schedules"] = [{"interval": seconds}]
    path.write_text(json.dumps(content))


def serve_environment(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in environment().items() if not name.startswith("PREFECT_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return inherited | {"PYTHONPATH": path, "PREFECT_WORKER_QUERY_SECONDS": "2"} | changes


@contextmanager
def served(folder: Path, *, port: int | None = None, endpoint_port: int = 0, **changes: str) -> Iterator[Served]:
    """Run `flows.serve` in a repository, as soon as it says that all is there; ends whatever it leaves."""
    port = port or free_port()
    env = serve_environment(**changes)
    command = [sys.executable, "-m", "flows.serve", "--port", str(port), "--endpoint-port", str(endpoint_port)]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    running = Served(folder, port, process, env)
    try:
        wait_for(running, lambda: "Press Ctrl-C to stop." in running.output)
        yield running
    finally:
        try:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=600)
        finally:
            kill(belonging(folder))


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, of which some may have ended meanwhile."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def belonging(folder: Path) -> list[psutil.Process]:
    """The processes that a repository's `flows.serve` started and that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BALLAST_ROOT") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def listed(output: str) -> dict[str, str]:
    """What `flows.serve` says of each deployment."""
    return dict(re.findall(r"^  (\w+) +(.*)$", output, re.MULTILINE))
