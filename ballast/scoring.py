"""Passing many texts through a network: short ones beside short ones, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from ballast.batching import sorted_batches

# Padded; the activations of a batch stay in a core's cache, or fill a GPU.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}


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
