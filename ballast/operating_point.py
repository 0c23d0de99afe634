"""Operating points: the threshold on a class's posterior, chosen on validation only."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ballast.metrics import ratio


def f1_threshold(log_odds: np.ndarray, positive: np.ndarray) -> float:
    """The probability above which a message is assigned to the class so that its F1 is highest.

    log_odds (n,) of the class against the rest, positive (n,) booleans with at least one true. Halfway between two
    neighbouring scores, and of equal F1 the highest threshold: it assigns fewer messages to the class.
    """
    scores, rank = np.unique(log_odds, return_inverse=True)
    true_positives = np.cumsum(np.bincount(rank, weights=positive)[::-1])[::-1]
    assigned = np.cumsum(np.bincount(rank)[::-1])[::-1]
    f1 = ratio(2 * true_positives, assigned + positive.sum())
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    below = scores[best - 1] if best else scores[0] - 1
    return float(expit((scores[best] + below) / 2))
