"""Recognise errors that mean that a device, or this machine, has run out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ballast.exceptions import TrainingError

OUT_OF_MEMORY = "out of memory"
REMEDY = "lower max_length, raise frozen_layers or choose a smaller model"
# Messages of drivers and allocators that raise a plain RuntimeError.
OOM_MESSAGES = (OUT_OF_MEMORY, "can't allocate memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that a device, or this machine, has no memory left."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in message for phrase in OOM_MESSAGES)
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the advice that follows it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def translate_oom() -> Iterator[None]:
    """Raise TrainingError when memory is too small for something other than a batch, such as the model or its optimizer."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"{OUT_OF_MEMORY}: {first_line(error)}; {REMEDY}") from error
