"""Which requests the endpoint scores together, and what it does when that fails or too many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from flows.scoring.batching import CHARACTERS, Batcher, BatchError, Overloaded
from flows.scoring.metrics import Metrics
from flows.scoring.supervisor import Unavailable

SETTINGS = {"max_wait_ms": 20, "batch": 4, "messages": 10, "megabytes": 1, "waiting": 6, "window": "%Y"}


class Fake:
    """Takes the place of the supervisor: records the batches; a text of "bad" fails a batch, "gone" ends the process."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.problem, self.ready = SETTINGS | settings, None, {"version": "0001"}
        self.batches: list[list[list[str]]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def ask(self, batch: dict[str, Any]) -> dict[str, Any]:
        texts = [[message["text"] for message in request] for request in batch["requests"]]
        self.batches.append(texts)
        await self.free.wait()
        every = [text for request in texts for text in request]
        if "gone" in every:
            raise Unavailable("the process ended")
        if "bad" in every:
            return {"error": "a reason"}
        results = [{"answers": [{"label": text, "version": "0001", "review": False} for text in request]} for request in texts]
        return {"results": results, "scored": len(every), "repeated": 0}


def request(*texts: str) -> list[dict[str, Any]]:
    return [{"id": text, "text": text} for text in texts]


def with_batcher(fake: Fake, body: Callable[[Batcher], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        batcher = Batcher(fake, Metrics())  # type: ignore[arg-type]
        task = asyncio.create_task(batcher.run())
        async with asyncio.timeout(20):
            await body(batcher)
        task.cancel()

    asyncio.run(run())


def test_requests_that_arrive_together_are_scored_together_up_to_the_limit() -> None:
    fake = Fake(waiting=100)

    async def body(batcher: Batcher) -> None:
        results = await asyncio.gather(*(batcher.answer(request(f"{at}a", f"{at}b")) for at in range(5)))
        assert [[answer["label"] for answer in result["answers"]] for result in results] == [
            [f"{at}a", f"{at}b"] for at in range(5)
        ]
        assert [len(batch) for batch in fake.batches] == [2, 2, 1]
        await batcher.answer(request(*"abcdefgh"))
        assert len(fake.batches[-1][0]) == 8, "a request with more than a batch is not divided"

    with_batcher(fake, body)


def test_long_texts_are_scored_apart() -> None:
    fake = Fake()

    async def body(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.answer(request(letter * CHARACTERS)) for letter in "ab"))
        assert [len(batch) for batch in fake.batches] == [1, 1]

    with_batcher(fake, body)


def test_a_batch_that_fails_is_scored_request_by_request() -> None:
    fake = Fake()

    async def body(batcher: Batcher) -> None:
        good, bad, other = await asyncio.gather(
            *(batcher.answer(request(text)) for text in ("good", "bad", "other")), return_exceptions=True
        )
        assert isinstance(good, dict) and isinstance(other, dict)
        assert isinstance(bad, BatchError) and str(bad) == "a reason"
        assert [len(batch) for batch in fake.batches] == [3, 1, 1, 1]

    with_batcher(fake, body)


def test_a_process_that_is_gone_fails_its_batch_only() -> None:
    fake = Fake()

    async def body(batcher: Batcher) -> None:
        with pytest.raises(Unavailable):
            await batcher.answer(request("gone"))
        assert (await batcher.answer(request("next")))["answers"]

    with_batcher(fake, body)


def test_too_many_waiting_messages_are_refused_at_once() -> None:
    fake = Fake(batch=1, max_wait_ms=0)

    async def body(batcher: Batcher) -> None:
        fake.free.clear()
        first = asyncio.create_task(batcher.answer(request("first")))
        while not fake.batches:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(batcher.answer(request(f"{at}a", f"{at}b"))) for at in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.answer(request("one more"))
        fake.free.set()
        assert all("answers" in result for result in await asyncio.gather(first, *waiting))

    with_batcher(fake, body)


def test_a_client_that_has_left_disturbs_nobody() -> None:
    fake = Fake()

    async def body(batcher: Batcher) -> None:
        fake.free.clear()
        left = asyncio.create_task(batcher.answer(request("left")))
        stays = asyncio.create_task(batcher.answer(request("stays")))
        while not fake.batches:
            await asyncio.sleep(0.001)
        left.cancel()
        fake.free.set()
        assert (await stays)["answers"][0]["label"] == "stays"

    with_batcher(fake, body)


def test_without_a_model_requests_are_refused_but_wait_while_a_process_is_replaced() -> None:
    fake = Fake()

    async def body(batcher: Batcher) -> None:
        fake.ready = None  # type: ignore[assignment]
        assert (await batcher.answer(request("waits")))["answers"]
        fake.problem = "no model is deployed"  # type: ignore[assignment]
        with pytest.raises(Unavailable, match="no model is deployed"):
            await batcher.answer(request("refused"))

    with_batcher(fake, body)
