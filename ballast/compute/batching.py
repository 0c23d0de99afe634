"""Batches of messages of similar length, so that little is padded."""

from __future__ import annotations

import numpy as np

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
