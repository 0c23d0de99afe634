"""Passing many texts through a network: short ones beside short ones, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ballast.compute.batching import sorted_batches
from ballast.compute.memory import is_out_of_memory

# Padded; the activations of a batch stay in a core's cache, or fill a GPU.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}


@contextmanager
def each_core(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Within, a `map` that works in so many threads, which share torch's own threads.

    On a CPU it is faster to give each core work of its own than to have all cores share each product of matrices: they need
    not wait for each other, and each keeps to its own cache. The calling thread gets no more than each of them, because torch's
    threads go on spinning for a while after their work, in the way of the others.
    """
    if workers == 1:
        yield map
        return
    threads = torch.get_num_threads()
    share = threads // workers
    try:
        torch.set_num_threads(share)
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def workers_for(tasks: int, device: torch.device) -> int:
    """In how many threads to do so many tasks: as many as torch uses on a CPU, one that feeds a GPU."""
    return max(1, min(torch.get_num_threads(), tasks)) if device.type == "cpu" else 1


def for_each_batch(score: Callable[[np.ndarray], None], lengths: np.ndarray, device: torch.device, name: str) -> None:
    """Call a function, under a progress bar of a name, with the rows of each batch of `lengths` (n,) in tokens.

    The function has to work in several threads at once. Where memory does not suffice for a batch, its halves are passed.
    """

    def within_memory(rows: np.ndarray) -> None:
        try:
            score(rows)
            return
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        # Not above, where the error still holds what the batch took.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for half in np.array_split(rows, 2):
            within_memory(half)

    batches = sorted_batches(lengths, TOKENS_PER_BATCH[device.type])
    with each_core(workers_for(len(batches), device)) as each:
        for _ in tqdm(each(within_memory, batches), desc=name, total=len(batches), unit="batch", disable=None, leave=False):
            pass
