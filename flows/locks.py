"""Locks between processes of one machine; a lock ends with its process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ballast.exceptions import UserError


@contextmanager
def single_instance(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file lock. If another process holds it, wait for it or raise UserError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another process holds this lock; wait until it has ended") from error
        yield
