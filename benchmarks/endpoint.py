"""Time the endpoint beside a plain FastAPI application around transformers' pipeline, with 1, 8 and 64 clients.

Writes benchmarks/endpoint.json. Run `python -m benchmarks.endpoint` in a folder where the pipeline has run, or name its parts.
Each client sends one message at a time and waits for the answer. The sides take turns, and the round with the most requests per
second counts for each, because other processes can only make it slower. The processor time of a request, of all processes of a
server, depends less on other processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped]

from benchmarks.measuring import ROOT, read_result, surroundings, write_result
from benchmarks.score import deploy, texts_of

CLIENTS = (1, 8, 64)
START_SECONDS, WARM_UP_SECONDS = 180.0, 1.0
# What a user writes who knows FastAPI and transformers.
PLAIN = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

class Message(BaseModel):
    id: str
    text: str

class Messages(BaseModel):
    messages: list[Message]

app, classify = FastAPI(), pipeline("text-classification", model=sys.argv[1])

@app.get("/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}

@app.post("/score")
def score(body: Messages) -> list[dict[str, object]]:
    found = classify([message.text for message in body.messages])
    return [{"id": message.id, **answer} for message, answer in zip(body.messages, found)]

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Side:
    """A running server, and the folder that it runs in."""

    folder: Path
    port: int
    process: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """The server and its children."""
        return [self.process, *self.process.children(recursive=True)]

    def processor_seconds(self) -> float:
        """Seconds of the processor that the server and its children have used."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def server(command: list[str], folder: Path, port: int) -> Iterator[Side]:
    """Run a server in a folder, and yield it when it is ready; its log goes to a file of the folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while asyncio.run(status(port)) != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: no server: {(folder / f'{port}.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield Side(folder, port, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def status(port: int) -> int:
    """The status of /ready; 0 if no server listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        code, _ = await exchange(reader, writer, b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        writer.close()
        return code
    except OSError:
        return 0


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request and read the status and body of the response; a client library would take longer than the server."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split()[1]), await reader.readexactly(length)


def request(id_: str, text: str) -> bytes:
    """A request to score a message."""
    body = json.dumps({"messages": [{"id": id_, "text": text}]}).encode()
    head = f"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def client(port: int, texts: Iterator[tuple[str, str]], end: float, seconds: list[float]) -> None:
    """Send one message after the other until the end; raises SystemExit for a failed request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.perf_counter()) < end:
        code, answer = await exchange(reader, writer, request(*next(texts)))
        if code != 200:
            raise SystemExit(f"error: status {code}: {answer!r}")
        seconds.append(time.perf_counter() - started)
    writer.close()


def measure(side: Side, clients: int, texts: Iterator[tuple[str, str]], duration: float) -> dict[str, float]:
    """Requests per second, median, 99th percentile and processor time in milliseconds, with so many clients at once."""

    async def together(duration: float) -> list[float]:
        seconds: list[float] = []
        end = time.perf_counter() + duration
        await asyncio.gather(*(client(side.port, texts, end, seconds) for _ in range(clients)))
        return seconds

    asyncio.run(together(WARM_UP_SECONDS))
    began, used = time.perf_counter(), side.processor_seconds()
    seconds = asyncio.run(together(duration))
    median, tail = np.percentile(seconds, [50, 99]) * 1000
    processor = 1000 * (side.processor_seconds() - used) / len(seconds)
    return {
        "requests_per_second": round(len(seconds) / (time.perf_counter() - began), 1),
        "p50_ms": round(float(median), 1),
        "p99_ms": round(float(tail), 1),
        "processor_ms": round(processor, 2),
    }


@contextmanager
def endpoint(model: Path) -> Iterator[Side]:
    """The endpoint with a model, deployed with even priors and costs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(ROOT / "params.yaml", folder)
        deploy(folder, model)
        port = free_port()
        with server(["-m", "flows.endpoint", "--port", str(port)], folder, port) as side:
            yield side


@contextmanager
def plain(model: Path) -> Iterator[Side]:
    """The plain application."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), free_port()
        (folder / "plain.py").write_text(PLAIN)
        with server(["plain.py", str(model.resolve()), str(port)], folder, port) as side:
            yield side


def new_messages(path: str) -> Iterator[tuple[str, str]]:
    """Messages (id, text) without end. Each id is new to the endpoint, which would not score the message again."""
    distinct = pd.unique(np.array(list(texts_of(path)), dtype=object))
    return ((str(number), str(distinct[number % len(distinct)])) for number in count())


def compare(sides: dict[str, Side], texts: Iterator[tuple[str, str]], duration: float, times: int) -> dict[str, Any]:
    """The best round of each side, by the number of clients."""
    found: dict[str, Any] = {}
    for clients in CLIENTS:
        best: dict[str, dict[str, float]] = {}
        for _ in range(times):
            for name, side in sides.items():
                measured = measure(side, clients, texts, duration)
                print(clients, name, measured, file=sys.stderr, flush=True)
                if name not in best or measured["requests_per_second"] > best[name]["requests_per_second"]:
                    best[name] = measured
        found[str(clients)] = best
    return found


def main(encoder: Path, linear: Path, messages: str, duration: float, times: int) -> None:
    """Measure both models, write and print."""
    texts = new_messages(messages)
    result = read_result("endpoint") | {"duration": duration, "times": times, **surroundings()}
    with endpoint(encoder) as ours, plain(encoder) as theirs:
        result["encoder"] = compare({"endpoint": ours, "pipeline": theirs}, texts, duration, times)
    most = result["encoder"][str(CLIENTS[-1])]
    result["ratio"] = round(most["endpoint"]["requests_per_second"] / most["pipeline"]["requests_per_second"], 2)
    result["processor_ratio"] = round(most["pipeline"]["processor_ms"] / most["endpoint"]["processor_ms"], 2)
    with endpoint(linear) as ours:
        result["linear"] = compare({"endpoint": ours}, texts, duration, times)
    write_result("endpoint", result)
    print(json.dumps(result, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, default=Path("models/baseline/0"), help="folder of a fine-tuned encoder")
    parser.add_argument("--linear", type=Path, default=Path("models/tfidf/0"), help="folder of a linear model")
    parser.add_argument("--messages", default="data/messages.parquet", help="a file with a column text")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of a round")
    parser.add_argument("--times", type=int, default=3, help="rounds of each side; the best counts")
    main(**vars(parser.parse_args()))
