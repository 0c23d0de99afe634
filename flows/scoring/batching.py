"""Score requests together: a request waits a few milliseconds for others, or until the process that scores is free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flows.scoring.metrics import Metrics
from flows.scoring.supervisor import Supervisor, Unavailable

# Characters that are scored together; a single request may have more. The model divides them into batches of equal tokens.
CHARACTERS = 1 << 20

Message = dict[str, Any]


class Overloaded(Exception):  # noqa: N818
    """Too many messages wait."""


class BatchError(Exception):
    """A request could not be scored, for a reason that is not its own."""


@dataclass
class Waiting:
    """A request that waits for its result."""

    messages: Sequence[Message]
    since: float
    result: asyncio.Future[dict[str, Any]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def characters(self) -> int:
        """The characters of its texts."""
        return sum(len(message["text"]) for message in self.messages)


class Batcher:
    """The requests that wait, and the task that scores them."""

    def __init__(self, supervisor: Supervisor, metrics: Metrics) -> None:
        self.supervisor, self.metrics = supervisor, metrics
        self._queue: deque[Waiting] = deque()
        self._messages = 0
        self._arrived = asyncio.Event()

    async def answer(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The result of a request: {answers}, {malformed} or {conflicts}; raises Overloaded, Unavailable and BatchError."""
        supervisor = self.supervisor
        # While a process that ended is replaced, requests wait.
        if supervisor.ready is None and supervisor.problem is not None:
            raise Unavailable(supervisor.problem)
        if self._messages and self._messages + len(messages) > supervisor.settings["waiting"]:
            raise Overloaded
        waiting = Waiting(messages, asyncio.get_running_loop().time())
        self._queue.append(waiting)
        self._messages += len(messages)
        self.metrics.waiting.set(self._messages)
        self._arrived.set()
        return await waiting.result

    async def run(self) -> None:
        """Score batch after batch until this task is cancelled."""
        while True:
            batch = await self._next()
            try:
                await self._score(batch)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Also an error of this code must not leave a request without a response.
                for waiting in batch:
                    if not waiting.result.done():
                        waiting.result.set_exception(error)

    async def _next(self) -> list[Waiting]:
        """The next requests to score together."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        settings = self.supervisor.settings
        due = self._queue[0].since + settings["max_wait_ms"] / 1000
        loop = asyncio.get_running_loop()
        while self._messages < settings["batch"] and (left := due - loop.time()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break
        batch = [self._queue.popleft()]
        count, characters = len(batch[0].messages), batch[0].characters
        while self._queue:
            count += len(self._queue[0].messages)
            characters += self._queue[0].characters
            if count > settings["batch"] or characters > CHARACTERS:
                break
            batch.append(self._queue.popleft())
        self._messages -= sum(len(waiting.messages) for waiting in batch)
        self.metrics.waiting.set(self._messages)
        return batch

    async def _score(self, batch: Sequence[Waiting]) -> None:
        """Score requests together and hand out the results; if that fails, score each alone, so that one harms no other."""
        window = datetime.now(UTC).strftime(self.supervisor.settings["window"])
        requests = [waiting.messages for waiting in batch]
        reply = await self.supervisor.ask({"window": window, "requests": requests})
        if "error" in reply:
            if len(batch) > 1:
                for waiting in batch:
                    await self._score([waiting])
                return
            if not batch[0].result.done():
                batch[0].result.set_exception(BatchError(reply["error"]))
            return
        self.metrics.scored(reply, sum(map(len, requests)))
        for waiting, result in zip(batch, reply["results"], strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)
