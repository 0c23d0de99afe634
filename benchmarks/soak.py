"""Load the endpoint for minutes, and deploy other versions meanwhile: failed requests, and memory at the start and the end.

Adds to benchmarks/soak.json. In a folder where the pipeline has run:
`python -m benchmarks.soak --models models/tfidf/0 models/tfidf/1 --name linear`. The two models take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.endpoint import Side, endpoint, exchange, new_messages, request
from benchmarks.measuring import read_result, surroundings, write_result
from benchmarks.score import deploy

COMMAND = "python -m benchmarks.soak"
SAMPLE_SECONDS = 2.0
# The first part of the time is left out, because caches fill; the last part is as long.
PART = 0.2


@dataclass
class Seen:
    """What the clients and the sampler saw: answers by version, failed requests by status, and (share of the time, MB)."""

    versions: Counter[str] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)


async def ask(side: Side, texts: Iterator[tuple[str, str]], pause: float, end: float, seen: Seen) -> None:
    """Send one message after the other until the end, each with a pause before it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    while time.monotonic() < end:
        await asyncio.sleep(pause)
        code, answer = await exchange(reader, writer, request(*next(texts)))
        if code == 200:
            seen.versions[json.loads(answer)["answers"][0]["version"]] += 1
        else:
            seen.failed[code] += 1
            print(code, answer, file=sys.stderr, flush=True)
    writer.close()


def megabytes(side: Side) -> float:
    """Memory of the server's processes that no other process shares."""
    total = 0
    for process in side.processes():
        # A process may end meanwhile.
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total / 2**20


async def sample(side: Side, began: float, end: float, seen: Seen) -> None:
    """Measure the memory until the end."""
    while (now := time.monotonic()) < end:
        seen.memory.append(((now - began) / (end - began), megabytes(side)))
        await asyncio.sleep(SAMPLE_SECONDS)


async def promote(side: Side, models: list[Path], times: int, seconds: float) -> None:
    """Deploy the models in turn, at equal distances."""
    for number, model in zip(range(times), itertools.cycle(models[::-1]), strict=False):
        await asyncio.sleep(seconds / (times + 1))
        await asyncio.to_thread(deploy, side.folder, model, f"{number + 2:04d}")


def median_memory(seen: Seen, start: float, end: float) -> float:
    """Median memory in a part of the time; while two versions are loaded, there is more, but not for long."""
    return round(float(np.median([used for at, used in seen.memory if start <= at < end])), 1)


async def soak(side: Side, models: list[Path], texts: Iterator[tuple[str, str]], options: argparse.Namespace) -> Seen:
    """Load a server."""
    seen, began = Seen(), time.monotonic()
    seconds = 60 * options.minutes
    end = began + seconds
    await asyncio.gather(
        *(ask(side, texts, options.pause, end, seen) for _ in range(options.clients)),
        sample(side, began, end, seen),
        promote(side, models, options.promotions, seconds),
    )
    return seen


def main(options: argparse.Namespace) -> None:
    """Load, write and print."""
    with endpoint(options.models[0]) as side:
        seen = asyncio.run(soak(side, options.models, new_messages(options.messages), options))
    found: dict[str, Any] = {
        "minutes": options.minutes,
        "clients": options.clients,
        "promotions": options.promotions,
        "requests": seen.versions.total() + seen.failed.total(),
        "failed": seen.failed.total(),
        "versions": len(seen.versions),
        "mb_at_start": median_memory(seen, PART, 2 * PART),
        "mb_at_end": median_memory(seen, 1 - PART, 1),
    }
    models = read_result("soak").get("models", {}) | {options.name: found}
    write_result("soak", {"models": models, "command": COMMAND, **surroundings()})
    print(json.dumps(found, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, nargs=2, required=True, help="folders of two models")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--messages", default="data/messages.parquet", help="a file with a column text")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--clients", type=int, default=8, help="clients at once")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds before a client sends its next message")
    parser.add_argument("--promotions", type=int, default=10, help="how often another version is deployed")
    main(parser.parse_args())
