"""Batches of messages of similar length, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

# Padded tokens of a batch that is scored: the activations stay in a core's cache, or fill a GPU.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}
# Sorting within pools keeps batches random enough, and a pool this large leaves little to pad.
BATCHES_PER_POOL = 200


def shuffled_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random batches of rows, each of similar length: `lengths` (n,) in tokens -> arrays of at most `batch_size` rows."""
    order = rng.permutation(len(lengths))
    pools = [order[at : at + batch_size * BATCHES_PER_POOL] for at in range(0, len(order), batch_size * BATCHES_PER_POOL)]
    batches = [
        sorted_pool[at : at + batch_size]
        for pool in pools
        for sorted_pool in [pool[np.argsort(lengths[pool], kind="stable")]]
        for at in range(0, len(pool), batch_size)
    ]
    return [batches[at] for at in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Batches of rows by descending length for scoring, each of at most `tokens` padded tokens, at least one row."""
    order = np.argsort(-lengths, kind="stable")
    batches = []
    at = 0
    while at < len(order):
        size = max(1, tokens // max(1, int(lengths[order[at]])))
        batches.append(order[at : at + size])
        at += size
    return batches


def for_each_batch(score: Callable[[np.ndarray], None], lengths: np.ndarray, device: torch.device, name: str) -> None:
    """Call a function, under a progress bar of a name, with the rows of each batch of `lengths` (n,) in tokens.

    On a CPU it is faster to give each core batches of its own than to have all cores share each product of matrices: they
    need not wait for each other, and each keeps to its own cache. The function has to work in several threads at once.
    """
    batches = sorted_batches(lengths, TOKENS_PER_BATCH[device.type])
    threads = torch.get_num_threads()
    workers = max(1, min(threads, len(batches))) if device.type == "cpu" else 1
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            done = pool.map(score, batches)
            for _ in tqdm(done, desc=name, total=len(batches), unit="batch", disable=None, leave=False):
                pass
    finally:
        torch.set_num_threads(threads)
