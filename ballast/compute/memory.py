"""What is done where a device, or this machine, has no memory left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ballast.exceptions import UserError

OUT_OF_MEMORY = "out of memory"
WHAT_HELPS = "lower train.max_length, raise train.frozen_layers or take a smaller train.model"
# How drivers and allocators say it where there is no exception of its own for it.
SAID = (OUT_OF_MEMORY, "can't allocate memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(words in said for words in SAID))


def first_line(error: Exception) -> str:
    """What an error says, without its advice."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raise UserError where memory does not suffice for the model, its optimizer or what else is no batch."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{OUT_OF_MEMORY}: {first_line(error)}; {WHAT_HELPS}") from error
