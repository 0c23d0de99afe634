"""The process that scores: `stages.production.answer`, asked through its standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from ballast.exceptions import UserError
from flows.scoring.logs import log

COMMAND = ("-m", "stages.production.answer")
LENGTH = struct.Struct(">I")
# A batch at work may end within this time, and the rest of the process.
STOP_SECONDS = 20.0
LAST_LINES = 20


class ScorerEnded(Exception):  # noqa: N818
    """The process ended before it answered."""


class Scorer:
    """A running process. It ends with this one, because its standard input ends then."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready: dict[str, Any] = {}
        self._asking = asyncio.Lock()
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._reading = asyncio.create_task(self._log_output())

    @classmethod
    async def start(cls) -> Scorer:
        """Start a process and wait until it has loaded the deployed version; raises UserError with its last line."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMAND,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=os.environ | {"TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"},
            # Ctrl-C must reach only this process, which first lets the other one finish.
            start_new_session=True,
        )
        scorer = cls(process)
        try:
            scorer.ready = await scorer._read()
        except ScorerEnded as error:
            await scorer.stop()
            reason = (list(scorer._last) or ["no output"])[-1].removeprefix("error: ")
            raise UserError(reason) from error
        except asyncio.CancelledError:
            process.kill()
            await scorer.stop()
            raise
        return scorer

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.returncode is not None

    async def ask(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Send a batch and return the reply; raises ScorerEnded."""
        content = json.dumps(batch, ensure_ascii=False).encode()
        async with self._asking:
            try:
                assert self.process.stdin is not None
                self.process.stdin.write(LENGTH.pack(len(content)) + content)
                await self.process.stdin.drain()
            except (ConnectionError, RuntimeError) as error:
                raise ScorerEnded from error
            return await self._read()

    async def killed(self) -> int:
        """Make sure that the process has ended; returns its exit code."""
        with suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()

    async def stop(self) -> None:
        """Let the process finish its batch and end; kill it if it does not."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                async with self._asking:
                    if self.process.stdin is not None:
                        self.process.stdin.close()
                    await self.process.wait()
        except TimeoutError:
            await self.killed()
        await self._reading

    async def _read(self) -> dict[str, Any]:
        """The next frame of the process; raises ScorerEnded."""
        assert self.process.stdout is not None
        try:
            (length,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
            return dict(json.loads(await self.process.stdout.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ScorerEnded from error

    async def _log_output(self) -> None:
        """Log what the process writes to standard error, line by line."""
        assert self.process.stderr is not None
        while True:
            try:
                line = await self.process.stderr.readline()
            except ValueError:  # a line longer than the reader's limit
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._last.append(text)
                log("scorer", line=text)
