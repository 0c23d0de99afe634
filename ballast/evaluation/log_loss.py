"""Log loss of single messages."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax


def log_losses(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Log loss (n,) of messages of the given classes (n,), from their logits (n, K).

    >>> log_losses(np.log([[0.25, 0.75], [0.5, 0.5]]), np.array([1, 0])).round(3)
    array([0.288, 0.693])
    """
    losses: np.ndarray = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(classes)), classes]
    return losses
