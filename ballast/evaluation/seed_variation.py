"""Variation between trainings: from the seeds of all techniques, or a stated bound where one seed shows nothing.

With rotating validation, a seed also changes the training folds, so that deterministic techniques vary too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ballast.evaluation.bootstrap import Draws, SeedError
from ballast.evaluation.metrics import bounds

# Assumed standard deviation between trainings where no technique has two seeds, as a share of the metric's range. Seeds of
# encoders that are fine-tuned on small data differ by a few hundredths (Dodge et al. 2020), so this is on the safe side.
BOUND = 0.05
# The same for a probability of one text, which varies more than a metric of many messages.
BOUND_OF_PROBABILITY = 0.25
# The same for losses without an upper bound, as a share of the value.
BOUND_OF_LOSS = 0.5


def deviation_bound(metric: str, value: float) -> float:
    """Assumed upper bound of the standard deviation of a metric between trainings, from its name and value.

    Examples
    --------
    >>> deviation_bound("spam.f1", 0.9), deviation_bound("mcc", 0.8), deviation_bound("log_loss", 0.1)
    (0.05, 0.1, 0.05)
    """
    low, high = bounds(metric)
    if not np.isfinite(high):
        return BOUND_OF_LOSS * abs(value)
    return (BOUND_OF_PROBABILITY if metric.startswith("probe.") else BOUND) * (high - low)


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Standard deviation between seeds by metric, pooled over techniques, with its degrees of freedom (0: unknown)."""

    deviations: Mapping[str, float]
    degrees: int


def pooled_deviation(varying: Sequence[Draws]) -> Pooled:
    """Pool the variances between seeds of techniques that vary.

    Examples
    --------
    >>> seeds = [np.array([0.90, 0.92]), np.array([0.80, 0.80])]
    >>> correct = np.ones((2, 1), dtype=bool)
    >>> pooled = pooled_deviation([Draws(values={}, seeds={"f1": values}, correct=correct) for values in seeds])
    >>> round(pooled.deviations["f1"], 4), pooled.degrees
    (0.01, 2)
    """
    degrees = sum(draws.n_seeds - 1 for draws in varying)
    if not degrees:
        return Pooled(deviations={}, degrees=0)
    squares = {
        metric: sum(float(((draws.seeds[metric] - draws.point(metric)) ** 2).sum()) for draws in varying)
        for metric in varying[0].seeds
    }
    return Pooled(deviations={metric: float(np.sqrt(total / degrees)) for metric, total in squares.items()}, degrees=degrees)


def seed_error(draws: Draws, metric: str, pooled: Pooled) -> SeedError:
    """Standard error of a technique's mean over seeds that comes from its trainings.

    A standard deviation of few seeds is often too small by chance. So it is the technique's own or the pooled one, whichever is
    larger, with its degrees of freedom. One seed has the pooled one. Where no technique has two seeds, it is `deviation_bound`.
    """
    if not pooled.degrees:
        return SeedError(value=deviation_bound(metric, draws.point(metric)) / np.sqrt(draws.n_seeds), degrees=0)
    deviation, degrees = pooled.deviations[metric], pooled.degrees
    own = float(np.std(draws.seeds[metric], ddof=1)) if draws.n_seeds > 1 else 0.0
    if own > deviation:
        deviation, degrees = own, draws.n_seeds - 1
    return SeedError(value=deviation / np.sqrt(draws.n_seeds), degrees=degrees)


def error_draws(error: SeedError, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (resamples,) of an error: Student's t, or normal if the error is a bound."""
    return error.value * (rng.standard_t(error.degrees, size=resamples) if error.degrees else rng.normal(size=resamples))


def with_seed_variation(techniques: Mapping[str, Draws]) -> dict[str, Draws]:
    """Add the variation between seeds to the bootstrap draws of each technique.

    Techniques with several seeds that are all equal do not vary and stay unchanged. The noise of techniques is independent,
    because their trainings are.
    """
    single = {name for name, draws in techniques.items() if draws.n_seeds == 1}
    varying = [name for name, draws in techniques.items() if any(np.ptp(values) > 0 for values in draws.seeds.values())]
    pooled = pooled_deviation([techniques[name] for name in varying])
    varied = dict(techniques)
    for name in [name for name in techniques if name in single or name in varying]:
        draws = techniques[name]
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        errors = {metric: seed_error(draws, metric, pooled) for metric in draws.values}
        values = {metric: drawn + error_draws(errors[metric], len(drawn), rng) for metric, drawn in draws.values.items()}
        varied[name] = replace(draws, values=values, sampling=draws.values, seed_errors=errors)
    return varied


def cross_validated_mean(values: np.ndarray, n_train: float, n_test: float) -> tuple[float, float, int]:
    """Mean, standard error and degrees of freedom of values (J,) of J trainings, such as differences by fold.

    The training sets of folds overlap, so that the values are correlated. The variance of the mean is
    s^2 (1/J + n_test/n_train) instead of s^2 / J (Nadeau and Bengio, Inference for the Generalization Error, 2003).

    n_train, n_test : messages that each training learns from and is tested on.

    Examples
    --------
    >>> mean, error, degrees = cross_validated_mean(np.array([0.01, 0.03, 0.02, 0.01, 0.03]), n_train=800, n_test=200)
    >>> round(mean, 3), round(error, 4), degrees
    (0.02, 0.0067, 4)
    """
    error = np.sqrt(np.var(values, ddof=1) * (1 / len(values) + n_test / n_train))
    return float(values.mean()), float(error), len(values) - 1
