"""Keep a process with the deployed version running, and replace it when another version is deployed or when it ends.

The next process loads its version while the current one answers, so no request waits for a promotion. If the next version
cannot be loaded, the current one stays.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from ballast.exceptions import UserError
from flows.scoring.logs import log
from flows.scoring.metrics import Metrics
from flows.scoring.scorer import Scorer, ScorerEnded

CURRENT = "production/deployed/current.json"
CHECK_SECONDS = 0.25
REPLACED_SECONDS = 0.02
LONGEST_DELAY = 30.0
# A batch that ended two processes may end the next one, too.
TRIES = 2

Signature = tuple[int, int, int] | None


class Unavailable(Exception):  # noqa: N818
    """No process can answer now; the message says why."""


def signature() -> Signature:
    """What changes when another version is deployed, because the file is replaced; None if there is no file."""
    try:
        status = os.stat(CURRENT)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Supervisor:
    """The current process, and why there is none or no newer one.

    settings : those of the last process that was ready; empty before the first one.
    problem : why the deployed version cannot be loaded; None if it is, or while a process that ended is replaced.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.current: Scorer | None = None
        self.settings: dict[str, Any] = {}
        self.problem: str | None = "the model is loading"
        self._signature: Signature = None
        self._wake = asyncio.Event()

    @property
    def ready(self) -> dict[str, Any] | None:
        """What the current process wrote when it was ready: version, labels, settings; None if there is none."""
        return self.current.ready if self.current is not None and not self.current.ended else None

    async def ask(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The reply to a batch; raises Unavailable. A process that ends is replaced, and the batch sent again.

        That is safe: what the ended process wrote is found by its id.
        """
        for _ in range(TRIES):
            while self.current is None and self.problem is None:
                await asyncio.sleep(REPLACED_SECONDS)
            if (scorer := self.current) is None:
                break
            try:
                return await scorer.ask(batch)
            except ScorerEnded:
                log("scorer_ended", code=await scorer.killed())
                if self.current is scorer:
                    self.current, self.problem = None, None
                    self._wake.set()
        raise Unavailable(self.problem or "the process that scores ended twice with these messages")

    async def run(self) -> None:
        """Start and replace processes until this task is cancelled."""
        delay = 1.0
        try:
            while True:
                now = signature()
                alive = self.ready is not None
                if not alive or now != self._signature:
                    started = await self._start(now)
                    delay = 1.0 if started else min(2 * delay, LONGEST_DELAY)
                    if not started and not alive:
                        await self._sleep(delay, now)
                        continue
                await self._sleep(CHECK_SECONDS, now)
        finally:
            if self.current is not None:
                await self.current.stop()

    async def _start(self, now: Signature) -> bool:
        """Start a process for the version that is deployed now, and let it take the place of the current one."""
        self._signature = now
        try:
            scorer = await Scorer.start()
        except UserError as error:
            self.problem = str(error)
            self.metrics.loads.labels("failed").inc()
            log("load_failed", error=str(error), version=self.ready and self.ready["version"])
            return False
        old, self.current, self.problem = self.current, scorer, None
        self.settings = scorer.ready["settings"]
        self.metrics.loads.labels("loaded").inc()
        self.metrics.deployed(scorer.ready["version"])
        log("loaded", version=scorer.ready["version"])
        if old is not None:
            await old.stop()
        return True

    async def _sleep(self, seconds: float, now: Signature) -> None:
        """Wait, at most until a process ends or another version is deployed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and signature() == now:
            try:
                async with asyncio.timeout(min(left, CHECK_SECONDS)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()
            return
