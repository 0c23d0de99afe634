"""Bootstrap over groups: resample whole groups of near duplicates, all statistics from weighted sums.

Source: Field and Welsh, Bootstrapping Clustered Data (2007); Efron and Tibshirani, An Introduction to the Bootstrap (1993).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

import numpy as np
from scipy.stats import norm

# Resamples are drawn a block at a time, so that memory stays bounded whatever the number of groups.
COUNTS_AT_ONCE = 1 << 24


def resample_counts(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn: blocks (b, groups) float32 whose rows each sum to `groups`."""
    rng = np.random.default_rng(seed)
    block = max(1, COUNTS_AT_ONCE // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(groups, size=(rows, groups)) + np.arange(rows)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float32)


Name = TypeVar("Name", bound=Hashable)


def resampled(
    statistics: Callable[[np.ndarray], dict[Name, np.ndarray]], groups: int, resamples: int, seed: int
) -> dict[Name, np.ndarray]:
    """Evaluate `statistics` (counts (b, groups) -> name -> (b,)) on every resample: name -> (resamples,)."""
    blocks = [statistics(counts) for counts in resample_counts(groups, resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap values (resamples,)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson_interval(share: float, trials: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a proportion: the bootstrap's has no width where the proportion is 0 or 1 (Wilson 1927)."""
    if trials <= 0:
        return 0.0, 1.0
    z = norm.ppf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    margin = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0, centre - margin)), float(min(1, centre + margin))
