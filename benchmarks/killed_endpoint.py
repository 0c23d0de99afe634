"""Kill the endpoint or its scoring process while clients send messages, start it again, and compare what the window holds.

Clients send each request until it is answered, and after the kill some that were answered again. Their order differs from run
to run, so the answers are compared by id, and only the other files with those of an undisturbed run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import Any

import httpx
import pandas as pd
import psutil

from benchmarks.killing import WINDOW, Ground, kill_everything, kill_groups, patience
from benchmarks.snapshots import differences, snapshot
from stages.production.answered import read_answered
from tests.flow_fixtures import free_port
from tests.project import corpus

NAME, BEFORE = "endpoint", "deployed"
KINDS = ("its process group", "everything", "the process that scores")
CLIENTS, REQUESTS, MOST = 4, 400, 4
# Until an undisturbed run shows how long everything takes.
FIRST = 600.0

Request = list[dict[str, str]]
Harm = dict[str, list[str]]


@dataclass
class Clients:
    """Clients that send requests side by side, each until it is answered, and all answers by id."""

    port: int
    requests: deque[Request]
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    stopped: Event = field(default_factory=Event)

    def work(self) -> None:
        """Send requests until all are answered or the clients are stopped."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=FIRST) as client:
            while not self.stopped.is_set():
                try:
                    request = self.requests.popleft()
                except IndexError:
                    return
                if not self.answered(client, request):
                    self.requests.append(request)
                    self.stopped.wait(0.05)

    def answered(self, client: httpx.Client, request: Request) -> bool:
        """Send a request and record its answers; returns whether it needs no further try."""
        try:
            response = client.post("/score", json={"messages": request})
        except httpx.TransportError:
            return False
        if response.status_code == httpx.codes.OK:
            for answer in response.json()["answers"]:
                self.answers.setdefault(answer["id"], []).append(answer)
        elif response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            self.refused.append(response.text[:200])
        return response.status_code != httpx.codes.SERVICE_UNAVAILABLE


def requests_of(rng: random.Random) -> list[Request]:
    """Requests of one to four messages, with different ids."""
    texts = list(corpus({"ham": REQUESTS * MOST, "spam": REQUESTS}, seed=2)["text"])
    requests = []
    for number in range(REQUESTS):
        count = rng.randint(1, MOST)
        requests.append([{"id": f"e{number}-{at}", "text": texts[number * MOST + at]} for at in range(count)])
    return requests


def window() -> str:
    """The window of the answers."""
    return datetime.now(UTC).strftime(WINDOW)


def start(ground: Ground, port: int) -> subprocess.Popen[bytes]:
    """Start the endpoint."""
    return ground.start(["python", "-m", "flows.endpoint", "--port", str(port)])


def send(clients: Clients, limit: float) -> bool:
    """Let the clients send; returns whether all requests are answered in time."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(clients.work) for _ in range(CLIENTS)]
        deadline = time.monotonic() + limit
        while not all(client.done() for client in working) and time.monotonic() < deadline:
            time.sleep(0.05)
        clients.stopped.set()
    return not clients.requests


def ended(ground: Ground, server: subprocess.Popen[bytes]) -> str:
    """Stop the endpoint and score its window; returns what went wrong."""
    server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(FIRST)
    except subprocess.TimeoutExpired:
        kill_everything(ground.project, [server])
        return f"the endpoint did not stop: {ground.said()}"
    # Uvicorn ends with the signal that stopped it.
    if code not in (0, -signal.SIGTERM):
        return f"the endpoint ended with exit code {code}: {ground.said()}"
    return ground.run([("python", "-m", "stages.production.score", "--window", window())])


def others(ground: Ground) -> dict[str, str]:
    """The snapshot without the files whose rows are in the order of the requests."""
    ordered = {f"production/answered/{window()}.sqlite", f"production/scored/{window()}.parquet"}
    found = snapshot(ground.project)
    return {name: "" if name in ordered else sha256 for name, sha256 in found.items()}


def undisturbed_endpoint(ground: Ground) -> None:
    """Answer all requests without a kill, for the duration and the files of later comparisons."""
    ground.restore(BEFORE)
    began = time.monotonic()
    port = free_port()
    server = start(ground, port)
    clients = Clients(port, deque(requests_of(random.Random(0))))
    wrong = "" if send(clients, FIRST) else f"not all requests were answered: {ground.said()}"
    ground.seconds[NAME] = time.monotonic() - began
    wrong = ended(ground, server) or wrong
    harm = harm_to(ground, clients.answers)
    if wrong or harm or clients.refused:
        raise RuntimeError(f"endpoint, undisturbed: {wrong} {harm} {clients.refused[:1]}")
    ground.expected[NAME] = others(ground)
    print(f"endpoint: undisturbed {ground.seconds[NAME]:.1f} s", file=sys.stderr, flush=True)


def kill(ground: Ground, server: subprocess.Popen[bytes], how: str) -> None:
    """Kill the endpoint in one of the ways."""
    if how == "everything":
        kill_everything(ground.project, [server])
    elif how == "its process group":
        kill_groups([server])
    else:
        for child in psutil.Process(server.pid).children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def endpoint_kill(ground: Ground, rng: random.Random) -> Harm:
    """Kill at a random moment and send again what was not answered; return the problems afterwards, by kind."""
    ground.restore(BEFORE)
    how, moment, port = rng.choice(KINDS), rng.random(), free_port()
    requests = requests_of(rng)
    server = start(ground, port)
    before = Clients(port, deque(requests))
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(CLIENTS):
            pool.submit(before.work)
        time.sleep(moment * ground.seconds[NAME])
        kill(ground, server, how)
        before.stopped.set()
    if how in KINDS[:2]:
        server = start(ground, port)
    done = [request for request in requests if request[0]["id"] in before.answers]
    again = deque(request for request in requests if request[0]["id"] not in before.answers)
    again.extend(rng.sample(done, min(len(done), REQUESTS // 10)))
    after = Clients(port, again, before.answers)
    wrong = "" if send(after, patience(ground.seconds[NAME])) else f"not all requests were answered: {ground.said()}"
    stopped = ended(ground, server)
    wrong = wrong or stopped
    if refused := [*before.refused, *after.refused]:
        wrong = wrong or refused[0]
    harm: Harm = {"blocked": [wrong]} if wrong else {}
    harm |= differences(ground.expected[NAME], others(ground)) | harm_to(ground, after.answers)
    said = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in harm.items())
    said = said or f"{len(done)} of {len(requests)} requests answered before it, all of them once in the window"
    print(f"endpoint, {how} at {moment:.0%}: {said}", file=sys.stderr, flush=True)
    return harm


def harm_to(ground: Ground, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Harm:
    """The ids whose answers are not exactly once in the window as they were given, by kind of harm."""
    path = ground.project / "production/answered" / f"{window()}.sqlite"
    written = {answer.id: answer.answer for answer in read_answered(path)}
    scored = pd.read_parquet(ground.project / "production/scored" / f"{window()}.parquet")
    of_id = {str(row["id"]): row for row in scored.to_dict("records")}
    given = {id_: {key: value for key, value in every[0].items() if key != "id"} for id_, every in answers.items()}
    same = {
        id_
        for id_, answer in given.items()
        if all(each == answers[id_][0] for each in answers[id_])
        and written.get(id_) == answer
        and id_ in of_id
        and of_id[id_]["label"] == answer["label"]
        and all(of_id[id_][f"p_{label}"] == value for label, value in answer["probabilities"].items())
    }
    counts = Counter(scored["id"])
    harm = {
        "lost": sorted(given.keys() - (written.keys() & of_id.keys())),
        "doubled": sorted(id_ for id_, count in counts.items() if count > 1),
        "other result": sorted((given.keys() & written.keys() & of_id.keys()) - same),
    }
    return {kind: ids for kind, ids in harm.items() if ids}
