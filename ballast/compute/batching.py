"""Batches of messages of similar length, which need little padding."""

from __future__ import annotations

import numpy as np

# Rows are sorted by length within random pools. A pool of this size needs little padding.
BATCHES_PER_POOL = 200


def shuffled_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random batches of rows of similar length, from `lengths` (n,) in tokens: arrays of at most `batch_size` rows."""
    order = rng.permutation(len(lengths))
    pool_size = batch_size * BATCHES_PER_POOL
    pools = [order[start : start + pool_size] for start in range(0, len(order), pool_size)]
    batches = [
        sorted_pool[start : start + batch_size]
        for pool in pools
        for sorted_pool in [pool[np.argsort(lengths[pool], kind="stable")]]
        for start in range(0, len(pool), batch_size)
    ]
    return [batches[index] for index in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Batches of rows for scoring, by descending length: at most `tokens` padded tokens, at least one row."""
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches
