"""Pass many texts through a network in batches of similar length, on all cores."""

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

# Padded tokens: the activations of a batch fit into a core's cache, or fill a GPU.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}


@contextmanager
def thread_map(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over `workers` threads, which divide torch's own threads among them.

    On a CPU it is faster to give each core separate work than to let all cores share each matrix product: the cores do not
    wait for each other, and each uses its own cache. The calling thread gets the same share of torch's threads, because those
    keep spinning for a while after their work and would disturb the workers.
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


def n_workers(tasks: int, device: torch.device) -> int:
    """Number of threads for `tasks` tasks: at most torch's threads on a CPU, and one thread to feed a GPU."""
    return max(1, min(torch.get_num_threads(), tasks)) if device.type == "cpu" else 1


def for_each_batch(score: Callable[[np.ndarray], None], lengths: np.ndarray, device: torch.device, name: str) -> None:
    """Call `score` with the rows of each batch of texts with `lengths` (n,) in tokens, under a progress bar `name`.

    `score` must be thread-safe. A batch that does not fit into memory is split into halves.
    """

    def within_memory(rows: np.ndarray) -> None:
        try:
            score(rows)
            return
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler: there the error still holds the memory of the batch.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for half in np.array_split(rows, 2):
            within_memory(half)

    batches = sorted_batches(lengths, TOKENS_PER_BATCH[device.type])
    with thread_map(n_workers(len(batches), device)) as parallel_map:
        passed = parallel_map(within_memory, batches)
        for _ in tqdm(passed, desc=name, total=len(batches), unit="batch", disable=None, leave=False):
            pass
