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
    """Standard deviation between trainings by metric, pooled over techniques, with degrees of freedom; empty if unknown."""

    deviations: Mapping[str, float]
    degrees: Mapping[str, float]


def pooled_deviation(varying: Sequence[Draws]) -> Pooled:
    """Pool the variances between trainings of techniques that vary, beyond what the sampling of messages explains.

    The degrees of freedom are those of a difference of variances (Satterthwaite 1946), at least 1.

    Examples
    --------
    >>> seeds = [np.array([0.90, 0.92]), np.array([0.80, 0.80])]
    >>> correct = np.ones((2, 1), dtype=bool)
    >>> pooled = pooled_deviation([Draws(values={}, seeds={"f1": values}, correct=correct) for values in seeds])
    >>> round(pooled.deviations["f1"], 4), pooled.degrees["f1"]
    (0.01, 2.0)
    """
    several = [draws for draws in varying if draws.n_seeds > 1]
    total = sum(draws.n_seeds - 1 for draws in several)
    deviations, degrees = {}, {}
    for metric in several[0].seeds if several else ():
        observed = sum((draws.n_seeds - 1) * float(np.var(draws.seeds[metric], ddof=1)) for draws in several) / total
        of_trainings = max(0.0, sum((draws.n_seeds - 1) * draws.training_variance(metric) for draws in several) / total)
        deviations[metric] = float(np.sqrt(of_trainings))
        degrees[metric] = max(1.0, total * (of_trainings / observed) ** 2) if observed else float(total)
    return Pooled(deviations=deviations, degrees=degrees)


def seed_error(draws: Draws, metric: str, pooled: Pooled) -> SeedError:
    """Standard error of a technique's mean over seeds that comes from its trainings.

    A standard deviation of few seeds is often too small by chance. So it is the technique's own or the pooled one, whichever is
    larger, with its degrees of freedom. One seed has the pooled one. Where no technique has two seeds, it is `deviation_bound`.
    """
    if not pooled.deviations:
        return SeedError(value=deviation_bound(metric, draws.point(metric)) / np.sqrt(draws.n_seeds), degrees=0)
    deviation, degrees = pooled.deviations[metric], pooled.degrees[metric]
    own = float(np.sqrt(max(0.0, draws.training_variance(metric)))) if draws.n_seeds > 1 else 0.0
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


def training_variance(draws: Sequence[Draws], metric: str, folds: Sequence[int] | None = None) -> tuple[float, int]:
    """Variance of a metric of one technique between trainings, pooled over techniques, with its degrees of freedom.

    Each training is scored on its own fold. The values (S,) by training of a technique, less the mean over techniques, vary
    with the messages of the folds and with the trainings. The bootstrap gives the first part; the rest is the second (method of
    moments, at least 0). Techniques with little variation over messages count most, because they show the trainings best.

    draws : of at least one technique, whose values are on the messages of all trainings together.
    folds : (S,) fold of each training; by default all differ. Trainings of equal folds have the same messages.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draws = [
    ...     Draws(values={"f1": np.full(100, 0.9)}, seeds={"f1": rng.normal(0.9, 0.01, 3)}, correct=np.ones((1, 1), dtype=bool))
    ...     for _ in range(200)
    ... ]
    >>> variance, degrees = training_variance(draws, "f1")
    >>> round(variance**0.5, 3), degrees
    (0.01, 398)
    """
    by_training = np.stack([technique.seeds[metric] for technique in draws])
    techniques, trainings = by_training.shape
    if techniques < 2 or trainings < 2:
        return 0.0, 0
    drawn = np.stack([technique.values[metric] for technique in draws])
    deviations = (drawn - drawn.mean(axis=0)).var(axis=1, ddof=1)
    folds = list(range(trainings)) if folds is None else list(folds)
    pairs = [first != second for index, first in enumerate(folds) for second in folds[:index]]
    # A fold has a share of the messages. Two trainings of one fold share its messages, so that their difference has none of it.
    of_messages = len(set(folds)) * deviations * np.mean(pairs)
    observed = (by_training - by_training.mean(axis=0)).var(axis=1, ddof=1)
    weights = 1 / (of_messages + np.median(of_messages)) ** 2 if np.median(of_messages) > 0 else np.ones(techniques)
    excess = np.average(observed - of_messages, weights=weights)
    return float(max(0.0, excess)) * techniques / (techniques - 1), (techniques - 1) * (trainings - 1)


def with_training_variation(techniques: Mapping[str, Draws], folds: Sequence[int] | None = None) -> dict[str, Draws]:
    """Add the variation between trainings to out-of-fold draws, in which each training has its own messages.

    The variance is that of `training_variance` for all techniques. One training does not show it; the deviation is then
    `deviation_bound`.
    """
    varied = {name: dict(draws.values) for name, draws in techniques.items()}
    errors: dict[str, dict[str, SeedError]] = {name: {} for name in techniques}
    generators = {name: np.random.default_rng(zlib.crc32(name.encode())) for name in techniques}
    for metric in next(iter(techniques.values())).values:
        variance, degrees = training_variance(list(techniques.values()), metric, folds)
        for name, draws in techniques.items():
            deviation = float(np.sqrt(variance)) if degrees else deviation_bound(metric, draws.point(metric))
            errors[name][metric] = SeedError(value=deviation / np.sqrt(draws.n_seeds), degrees=degrees)
            varied[name][metric] = draws.values[metric] + error_draws(
                errors[name][metric], len(draws.values[metric]), generators[name]
            )
    return {
        name: replace(draws, values=varied[name], sampling=draws.values, seed_errors=errors[name])
        for name, draws in techniques.items()
    }
