"""Intervals of metrics: bootstrap over groups of test messages, and variation between seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import Draws, bootstrap_draws, seed_noise, wilson_interval
from ballast.evaluation.metrics import bounds, f1_of_jaccard
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.evaluation.statistic import Statistic, stack_columns, weighted_sums

Points = Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Bootstrap draws of the metrics of several seeds.

    values : metric -> (resamples,) draws of the mean over seeds.
    chance : metric -> variance between seeds that the sampling of messages explains; 0 for one seed.
    """

    values: Mapping[str, np.ndarray]
    chance: Mapping[str, float]


def over_seeds(draws: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Mean over seeds of draws (resamples,), and the variance between seeds that the sampling of messages explains.

    A seed differs from another by its training and by chance on single messages. The bootstrap of the mean contains this
    chance, so the variation between seeds must not add it again.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> common, seeds = rng.normal(size=2000), [rng.normal(0, 0.5, 2000) for _ in range(3)]
    >>> mean, chance = over_seeds([common + of_seed for of_seed in seeds])
    >>> round(chance, 2)
    0.25
    """
    by_seed = np.stack(draws)
    mean: np.ndarray = by_seed.mean(axis=0)
    if len(by_seed) == 1:
        return mean, 0.0
    return mean, float((by_seed - mean).var(axis=1).sum() / (len(by_seed) - 1))


def pooled_draws(families: Mapping[str, Sequence[Statistic]], messages: Labelled, protocol: Protocol) -> dict[str, Resampled]:
    """Bootstrap draws of each metric's mean over seeds, by family; a family has one statistic per seed.

    All families of all techniques use the same resamples of the groups of the messages, so that differences are paired.
    """
    keys = [(family, seed) for family, by_seed in families.items() for seed in range(len(by_seed))]
    statistics = [families[family][seed] for family, seed in keys]
    ends = np.cumsum([statistic.sums.shape[1] for statistic in statistics])[:-1]
    stacked = stack_columns([statistic.sums for statistic in statistics], np.float32)

    def of_resamples(counts: np.ndarray) -> dict[tuple[str, str, int], np.ndarray]:
        pieces = np.split(weighted_sums(counts, stacked).astype(np.float64), ends, axis=1)
        return {
            (family, name, seed): values
            for (family, seed), statistic, piece in zip(keys, statistics, pieces, strict=True)
            for name, values in statistic.of_sums(piece, counts).items()
        }

    drawn = bootstrap_draws(of_resamples, messages.n_groups, protocol.resamples, protocol.seed)
    by_seed: dict[str, dict[str, list[np.ndarray]]] = {family: {} for family in families}
    for (family, name, _), values in drawn.items():
        by_seed[family].setdefault(name, []).append(values)
    resampled = {family: {name: over_seeds(of_seeds) for name, of_seeds in names.items()} for family, names in by_seed.items()}
    return {
        family: Resampled(
            values={name: mean for name, (mean, _) in of_names.items()},
            chance={name: chance for name, (_, chance) in of_names.items()},
        )
        for family, of_names in resampled.items()
    }


def with_training_noise(draws: np.ndarray, by_seed: np.ndarray, chance: float | np.ndarray, protocol: Protocol) -> np.ndarray:
    """Bootstrap draws (..., resamples) of means over seeds, with the variation between trainings beyond `chance`.

    by_seed : (..., S) value of each seed. One seed shows no variation.
    chance : (...) variance between seeds that the sampling of messages explains.
    """
    seeds = by_seed.shape[-1]
    variance = by_seed.var(axis=-1, ddof=1) - chance if seeds > 1 else np.zeros(by_seed.shape[:-1])
    deviation = np.sqrt(np.maximum(0.0, variance))[..., None]
    rng = np.random.default_rng(protocol.seed)
    return draws + seed_noise(deviation, seeds, protocol.resamples, rng, seeds - 1)


def point_values(statistics: Sequence[Statistic], messages: Labelled) -> list[dict[str, float]]:
    """The value of each metric on the messages, by statistic."""
    every_group_once = np.ones((1, messages.n_groups))
    return [{name: float(value[0]) for name, value in statistic(every_group_once).items()} for statistic in statistics]


def intervals(
    statistics: Sequence[Statistic],
    points: Sequence[Mapping[str, float]],
    draws: Resampled,
    protocol: Protocol,
) -> dict[str, dict[str, float]]:
    """Each metric's mean over seeds with its interval, over groups of test messages and, from two seeds on, over seeds."""
    names = list(points[0])
    by_seed = np.array([[point[name] for point in points] for name in names])
    drawn, chance = np.stack([draws.values[name] for name in names]), np.array([draws.chance[name] for name in names])
    trials = {}
    for name in names:
        of_seeds = [statistic.trials[name] for statistic in statistics if name in statistic.trials]
        if of_seeds:
            trials[name] = float(np.mean(of_seeds))
    values = dict(zip(names, by_seed.mean(axis=1).tolist(), strict=True))
    return with_intervals(values, with_training_noise(drawn, by_seed, chance, protocol), trials, protocol)


def with_intervals(
    values: Mapping[str, float], draws: np.ndarray, trials: Mapping[str, float], protocol: Protocol
) -> dict[str, dict[str, float]]:
    """Value, low and high of m metrics from their draws (m, resamples), all metrics at once.

    A proportion of 0 or 1 has no spread in the bootstrap. It gets Wilson's interval, with the number of groups, unweighted, as
    `trials`.
    """
    lows, highs = np.quantile(draws, [(1 - protocol.confidence) / 2, (1 + protocol.confidence) / 2], axis=1)
    estimates = {}
    for (name, value), low, high in zip(values.items(), lows.tolist(), highs.tolist(), strict=True):
        if name.endswith(".support"):
            # A count, not an estimate.
            estimates[name] = {"value": value, "low": value, "high": value}
            continue
        ends = (low, high)
        if name in trials and value in (0.0, 1.0):
            ends = wilson_interval(value, trials[name], protocol.confidence)
            if name.endswith(".f1"):
                ends = f1_of_jaccard(ends[0]), f1_of_jaccard(ends[1])
        least, most = bounds(name)
        estimates[name] = {"value": value, "low": max(least, min(ends[0], value)), "high": min(most, max(ends[1], value))}
    return estimates


def draws_of(resampled: Resampled, points: Points, preferences: Sequence[np.ndarray], protocol: Protocol) -> Draws:
    """Draws for a comparison: bootstrap draws, points by seed, and preferences (n, K) by seed, with decisions by argmax."""
    return Draws(
        values=resampled.values,
        chance=resampled.chance,
        seeds={name: np.array([point[name] for point in points]) for name in points[0]},
        correct=np.stack([scores.argmax(axis=1) == protocol.test.classes for scores in preferences]),
    )
