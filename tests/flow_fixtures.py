"""A Prefect server for tests, what it knows, and a small DVC repository to run the flows in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from ballast.io.digest import with_digest
from tests.project import ROOT, Outcome, Project, environment

Value = TypeVar("Value")


def eventually(ask: Callable[[], Value], seconds: float = 600.0) -> Value:
    """The first true answer; fails when there is none in time. Prefect keeps task runs and logs a moment later."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return answer


class Login(httpx.Auth):
    """Sends an auth string with each request, and a CSRF token with those that change something."""

    requires_response_body = True

    def __init__(self, url: str, word: str) -> None:
        self.url, self.basic = url, httpx.BasicAuth(*word.split(":", 1))
        self.client, self.token = str(uuid4()), ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.method != "GET" and not self.token:
            wanted = httpx.Request("GET", f"{self.url}/csrf-token", params={"client": self.client})
            while (answer := (yield next(self.basic.auth_flow(wanted)))).status_code == httpx.codes.SERVICE_UNAVAILABLE:
                time.sleep(0.2)
            self.token = answer.raise_for_status().json()["token"]
        request.headers.update({"Prefect-Csrf-Client": self.client, "Prefect-Csrf-Token": self.token})
        yield next(self.basic.auth_flow(request))


@dataclass(frozen=True)
class Server:
    """A running Prefect server."""

    url: str
    home: Path
    word: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a flow's process needs to use it."""
        known = {"PREFECT_API_AUTH_STRING": self.word} if self.word else {}
        return {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home)} | known

    @cached_property
    def login(self) -> Login | None:
        """Who we are, where it asks."""
        return Login(self.url, self.word) if self.word else None

    def all(self, what: str, **conditions: Any) -> list[dict[str, Any]]:
        """Everything of a kind under conditions, such as `flow_runs`."""
        answer = httpx.post(f"{self.url}/{what}/filter", json=conditions, timeout=30, auth=self.login)
        answer.raise_for_status()
        return list(answer.json())

    def in_state(self, kind: str) -> list[dict[str, Any]]:
        """The flow runs in a state, such as `RUNNING`."""
        return self.all("flow_runs", flow_runs={"state": {"type": {"any_": [kind]}}})

    def last_run(self) -> dict[str, Any]:
        """The flow run that began last."""
        return self.all("flow_runs", sort="START_TIME_DESC", limit=1)[0]

    def of_last_run(self, what: str) -> list[dict[str, Any]]:
        """The task runs or logs of the flow run that began last."""
        return self.all(what, flow_runs={"id": {"any_": [self.last_run()["id"]]}})

    def artifacts_of_last_run(self) -> dict[str, dict[str, Any]]:
        """The artifacts of the flow run that began last, by key."""
        found = self.all("artifacts", artifacts={"flow_run_id": {"any_": [self.last_run()["id"]]}})
        return {artifact["key"]: artifact for artifact in found if artifact["key"]}  # those without one are Prefect's


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prefect_server(home: Path) -> Iterator[Server]:
    """A Prefect server with a database of its own, on a free port."""
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}/api", home)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    settings = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    output = home / "server.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=inherited | settings, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            try:
                if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield server
    finally:
        # This process's events went to this server; the next one gets a connection of its own.
        from prefect.events.worker import EventsWorker

        EventsWorker.drain_all(timeout=10)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# Each step notes that it began and ended, and in between does what the file of its name in `do` says.
STEP = """
echo "start $DVC_STAGE threads=${OMP_NUM_THREADS:-unset}" >> steps.log
if [ -f "do/$DVC_STAGE" ]; then . "./do/$DVC_STAGE"; fi
mkdir -p "$(dirname "$1")"
if [ -f "$1.wanted" ]; then cp "$1.wanted" "$1"; else echo "$DVC_STAGE" > "$1"; fi
echo "end $DVC_STAGE" >> steps.log
"""

GRAPH = """
stages:
  report:
    cmd: sh step.sh reports/index.html
    deps: [reports/leaderboard.json]
    outs: [reports/index.html]
  ingest:
    cmd: sh step.sh data.txt
    deps: [raw.txt]
    outs: [data.txt]
  sample:
    matrix: {technique: "${techniques}", seed: "${seeds}"}
    cmd: sh step.sh samples/${item.technique}/${item.seed}
    deps: [data.txt]
    outs: ["samples/${item.technique}/${item.seed}"]
  train:
    matrix: {technique: "${techniques}", seed: "${seeds}"}
    cmd: sh step.sh models/${item.technique}/${item.seed}
    deps: [data.txt, "samples/${item.technique}/${item.seed}"]
    outs: ["models/${item.technique}/${item.seed}"]
  compare:
    cmd: sh step.sh reports/leaderboard.json
    deps: [models]
    outs:
      - reports/leaderboard.json: {cache: false}
"""

METRICS = {
    "a": {"macro_f1": 0.95, "spam.f1": 0.91, "spam.recall": 0.90, "spam.precision": 0.92},
    "b": {"macro_f1": 0.97, "spam.f1": 0.94, "spam.recall": 0.93, "spam.precision": 0.95},
}
LEADERBOARD = {
    "labels": ["ham", "spam"],
    "reference": "a",
    "production_prior": {"ham": 0.874, "spam": 0.126},
    "techniques": {
        name: {
            "out_of_fold": {key: {"value": value, "low": value - 0.02, "high": value + 0.01} for key, value in metrics.items()}
        }
        for name, metrics in METRICS.items()
    },
    # The cheaper one is selected, although it is second.
    "selection": {
        "technique": "a",
        "metric": "macro_f1",
        "candidates": {"a": {"difference": -0.02}, "b": {"difference": 0.0}},
    },
}


@dataclass(frozen=True)
class StandIn(Project):
    """A DVC repository with the shape of the real one and steps that take no time."""

    def on(self, stage: str, *script: str) -> None:
        """What a stage does before it writes its file: lines of shell."""
        self.write(f"do/{stage}", "\n".join(script).encode())

    @property
    def steps(self) -> list[str]:
        """What began and ended, in order."""
        log = self.folder / "steps.log"
        return [line.partition(" threads=")[0] for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def threads(self) -> dict[str, str]:
        """The threads that each stage was given."""
        lines = (self.folder / "steps.log").read_text().splitlines()
        return {line.split()[1]: line.split("threads=")[1] for line in lines if line.startswith("start")}

    def flow(self, *arguments: str, **changes: str) -> Outcome:
        """Run the pipeline's flow as a user does."""
        return self.run(sys.executable, "-m", "flows.pipeline", *arguments, **changes)


def stand_in(folder: Path) -> StandIn:
    """Make the repository: ingest, sample and train for techniques a and b, compare, report."""
    inherited = {name: value for name, value in environment().items() if not name.startswith(("PREFECT_", "OMP_"))}
    made = StandIn(folder, ROOT, inherited | {"DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")})
    files = {
        "dvc.yaml": GRAPH,
        "params.yaml": "{techniques: {a: {}, b: {}}, seeds: [0]}",
        "step.sh": STEP,
        "raw.txt": "messages",
        "reports/leaderboard.json.wanted": json.dumps(with_digest(LEADERBOARD)),
        # What `dvc init` writes, without the second that it takes to start.
        ".dvc/config": "",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    }
    for name, content in files.items():
        made.write(name, content.encode())
    done = made.run("git", "init", "--quiet")
    assert done.code == 0, done.stderr
    return made
