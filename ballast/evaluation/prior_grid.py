"""The class priors at which all techniques are evaluated: from balance to one in a hundred."""

from __future__ import annotations

import numpy as np

RATIOS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30, 100)


def prior_grid(share: np.ndarray) -> dict[str, np.ndarray]:
    """Priors (K,) by ratio: "1:10" means one message of the rarest class to ten others, in the proportions of share (K,)."""
    rarest = int(share.argmin())
    grid = {}
    for ratio in RATIOS:
        prior = share / (share.sum() - share[rarest]) * ratio / (1 + ratio)
        prior[rarest] = 1 / (1 + ratio)
        grid[f"1:{ratio}"] = prior
    return grid
