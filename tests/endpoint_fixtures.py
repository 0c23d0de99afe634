"""A running endpoint in a folder with a deployed model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ballast.io.digest import file_sha256
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.flow_fixtures import eventually, free_port
from tests.project import ROOT, Project


@dataclass
class Endpoint:
    """A running `flows.endpoint`, its log and a client."""

    project: Project
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client

    def score(self, messages: Sequence[dict[str, Any]]) -> httpx.Response:
        return self.client.post("/score", json={"messages": list(messages)})

    def answers(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers to messages that are valid."""
        response = self.score(messages)
        assert response.status_code == 200, response.text
        return list(response.json()["answers"])

    @property
    def version(self) -> str:
        response = self.client.get("/version")
        return str(response.json().get("version"))

    @property
    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with an event."""
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == name]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def endpoint(project: Project, *arguments: str, wait: bool = True, **changes: str) -> Iterator[Endpoint]:
    """Start an endpoint and wait until it is ready."""
    port, log = free_port(), project.folder / "endpoint.log"
    environment = project.environment | {"PYTHONPATH": str(ROOT)} | changes
    command = [sys.executable, "-m", "flows.endpoint", "--port", str(port), *arguments]
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=file, stderr=file)
    token = changes.get("BALLAST_ENDPOINT_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        started = Endpoint(project, port, process, log, client)
        try:
            if wait:
                eventually(lambda: started.ready)
            yield started
        finally:
            started.stop()


def switch(folder: Path, version: str) -> None:
    """Deploy a version that is in the folder already."""
    path = folder / PROJECT.current
    history = read_json(path)["history"]
    pin = file_sha256(folder / PROJECT.deployed / version / "manifest.json")
    entry = {"version": version, "at": "2026-02-01T00:00:00+00:00", "reason": "promote", "sha256": pin}
    write_json(path, {"version": version, "history": [*history, entry]})


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process has ended, also within some seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False
