"""Bootstrap over groups: resample whole groups of near duplicates, with statistics of weighted sums.

Source: Field and Welsh, Bootstrapping Clustered Data (2007); Efron and Tibshirani, An Introduction to the Bootstrap (1993).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

# One seed does not show how much trainings vary.
MINIMUM_SEEDS = 2
# Resamples are drawn in blocks, which bounds the memory. Each block passes over the sums of all groups, so very small blocks
# would make the time quadratic in the number of groups.
COUNTS_AT_ONCE = 1 << 24
LEAST_ROWS = 32
# Groups for which the counts of a block fit into a core's cache.
GROUPS_IN_CACHE = 4096


def resample_counts(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn: blocks (b, groups) float32 whose rows each sum to `groups`.

    Blocks are column-major, so that products with sparse sums need no copy.

    Examples
    --------
    >>> [counts] = resample_counts(groups=4, resamples=3, seed=0)
    >>> counts.sum(axis=1)
    array([4., 4., 4.], dtype=float32)
    """
    rng = np.random.default_rng(seed)
    block = max(LEAST_ROWS, COUNTS_AT_ONCE // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.empty((rows, groups), dtype=np.float32)
        for row in counts:
            row[:] = np.bincount(rng.integers(groups, size=groups, dtype=np.uint32), minlength=groups)
        yield to_column_major(counts)


def to_column_major(block: np.ndarray) -> np.ndarray:
    """Copy a block (b, groups) to column-major order, strip by strip: numpy's own copy of a wide block misses the cache.

    Examples
    --------
    >>> to_column_major(np.zeros((2, 3))).flags.f_contiguous
    True
    """
    copied = np.empty_like(block, order="F")
    for start in range(0, block.shape[1], GROUPS_IN_CACHE):
        strip = slice(start, start + GROUPS_IN_CACHE)
        copied[:, strip] = block[:, strip]
    return copied


Name = TypeVar("Name", bound=Hashable)


def bootstrap_draws(
    statistics: Callable[[np.ndarray], dict[Name, np.ndarray]], groups: int, resamples: int, seed: int
) -> dict[Name, np.ndarray]:
    """Evaluate `statistics` (counts (b, groups) -> name -> (b,)) on every resample: name -> (resamples,).

    Examples
    --------
    >>> correct = np.repeat([0.0, 1.0], [10, 90])
    >>> draws = bootstrap_draws(lambda counts: {"accuracy": counts @ correct / 100}, groups=100, resamples=1000, seed=0)
    >>> low, high = percentile_interval(draws["accuracy"], confidence=0.95)
    >>> round(low, 2), round(high, 2)
    (0.84, 0.95)
    """
    # One thread: the products are small, so on a busy machine threads would mostly wait for each other.
    with threadpool_limits(1, user_api="blas"):
        blocks = [statistics(counts) for counts in resample_counts(groups, resamples, seed)]
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def seed_noise(
    deviation: float | np.ndarray, seeds: int, resamples: int, rng: np.random.Generator, degrees: float
) -> np.ndarray:
    """Draws (resamples,) of the error of a mean over seeds, compared with all possible trainings (Student's t).

    deviation : standard deviation between seeds, estimated with `degrees` degrees of freedom. With one seed it is unknown, and
        the draws are 0. An array (m, 1), for m metrics, gives draws (m, resamples).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = seed_noise(deviation=0.02, seeds=3, resamples=10_000, rng=rng, degrees=2)
    >>> low, high = percentile_interval(noise, confidence=0.5)
    >>> round(low, 3), round(high, 3)
    (-0.009, 0.009)
    >>> seed_noise(deviation=0.02, seeds=1, resamples=3, rng=rng, degrees=1)
    array([0., 0., 0.])
    """
    if seeds < MINIMUM_SEEDS:
        return np.zeros(resamples)
    return deviation / np.sqrt(seeds) * rng.standard_t(degrees, size=resamples)


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap values (resamples,).

    Examples
    --------
    >>> percentile_interval(np.arange(101), confidence=0.5)
    (25.0, 75.0)
    """
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson_interval(share: float, trials: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927). At 0 or 1 the bootstrap interval has no width.

    Examples
    --------
    >>> low, high = wilson_interval(share=1.0, trials=20, confidence=0.95)
    >>> round(low, 3), round(high, 3)
    (0.839, 1.0)
    """
    if trials <= 0:
        return 0.0, 1.0
    z = ndtri((1 + confidence) / 2)
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    margin = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0, centre - margin)), float(min(1, centre + margin))


@dataclass(frozen=True, kw_only=True)
class SeedError:
    """Standard error of a mean over seeds that comes from the trainings, with its degrees of freedom (0: not measured)."""

    value: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Bootstrap draws of a technique's metrics, for comparisons.

    values : metric -> (resamples,) bootstrap draws of the mean over seeds, over groups of test messages.
    seeds : metric -> (S,) value of each seed.
    correct : (S, n) whether each seed classifies a message correctly.
    sampling : the draws over messages alone, if `values` also vary between seeds.
    seed_errors : metric -> standard error from the trainings, if `values` vary between seeds.
    pooled : metric -> value on the messages of all seeds together, if each seed has its own messages.
    chance : metric -> variance between seeds that the sampling of messages explains, and that `values` therefore include.

    Examples
    --------
    >>> draws = Draws(values={}, seeds={"macro_f1": np.array([0.9, 0.92])}, correct=np.ones((2, 5), dtype=bool))
    >>> round(draws.point("macro_f1"), 2)
    0.91
    """

    values: Mapping[str, np.ndarray]
    seeds: Mapping[str, np.ndarray]
    correct: np.ndarray
    pooled: Mapping[str, float] | None = None
    chance: Mapping[str, float] = field(default_factory=dict)
    sampling: Mapping[str, np.ndarray] | None = None
    seed_errors: Mapping[str, SeedError] = field(default_factory=dict)

    @property
    def n_seeds(self) -> int:
        """Number of seeds."""
        return len(next(iter(self.seeds.values()), self.correct))

    def point(self, metric: str) -> float:
        """The metric's mean over seeds, or its value on the messages of all seeds together."""
        return float(np.mean(self.seeds[metric]) if self.pooled is None else self.pooled[metric])

    def training_variance(self, metric: str) -> float:
        """The variance between seeds beyond what the sampling of messages explains; it may be below 0. At least two seeds."""
        return float(np.var(self.seeds[metric], ddof=1)) - self.chance.get(metric, 0.0)
