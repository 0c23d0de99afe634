"""Scoring many texts on all cores of a CPU: a thread for each core, with short texts beside short ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ballast.batching import sorted_batches
from ballast.model import Model

# About a thousand tokens: the activations of a piece stay in a core's cache.
CHARACTERS_PER_PIECE = 4096


def logits(model: Model, texts: Sequence[str]) -> np.ndarray:
    """Logits (n, K) of texts (n,), as `model.logits` gives them but for rounding.

    On a CPU it is faster to give each thread texts of its own than to have all threads share each product of matrices: they
    need not wait for each other, and each keeps to its own cache.
    """
    threads = torch.get_num_threads()
    if model.kind != "encoder" or threads == 1 or torch.cuda.is_available():
        return model.logits(texts)
    scores = np.empty((len(texts), len(model.labels)), dtype=np.float32)

    def score(rows: np.ndarray) -> None:
        scores[rows] = model.logits([texts[row] for row in rows])

    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(score, sorted_batches(lengths, CHARACTERS_PER_PIECE)):
            pass
    torch.set_num_threads(threads)
    return scores
