"""Metrics of out-of-fold scores, where what is applied to a part of the messages is fitted on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ballast.evaluation.adjustment import Adjusted
from ballast.evaluation.bootstrap import Draws, seed_noise
from ballast.evaluation.intervals import point_values, pooled_draws, with_intervals
from ballast.evaluation.metrics import Decisions, Metrics
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.evaluation.statistic import Statistic

Estimates = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class OutOfFoldEstimates:
    """Metrics (value, low, high) by family, and the draws at the operating point."""

    estimates: Mapping[str, Estimates]
    draws: Draws


def out_of_fold_estimates(adjusted: Adjusted, protocol: Protocol) -> OutOfFoldEstimates:
    """Metrics of the out-of-fold messages, raw, corrected and at the operating point, on all messages together."""
    messages = protocol.out_of_fold
    ones, weights = np.ones(len(protocol.names)), protocol.production_weights(messages)
    families = {
        "raw": Family(kind=Metrics, logits=adjusted.out_of_fold, class_weights=ones),
        "corrected": Family(kind=Metrics, logits=adjusted.crossed, class_weights=weights),
        "operating_point": Family(kind=Decisions, logits=adjusted.crossed_preferences, class_weights=weights),
    }
    statistics = {name: family.statistic(messages, protocol) for name, family in families.items()}
    drawn = pooled_draws({name: [statistic] for name, statistic in statistics.items()}, messages, protocol)
    draws = {name: family.draws(statistics[name], drawn[name].values, protocol) for name, family in families.items()}
    estimates = {name: estimates_of(statistics[name], draws[name], protocol) for name in families}
    return OutOfFoldEstimates(estimates=estimates, draws=draws["operating_point"])


@dataclass(frozen=True, kw_only=True)
class Family:
    """How out-of-fold messages are measured: the kind of metrics, logits (n, K), weights (K,) of the messages of each class."""

    kind: type[Metrics | Decisions]
    logits: np.ndarray
    class_weights: np.ndarray

    def statistic(self, messages: Labelled, protocol: Protocol, rows: np.ndarray | None = None) -> Statistic:
        """The metrics of the messages; `rows` (n,) are those of the messages in the logits, if not all."""
        logits = self.logits if rows is None else self.logits[rows]
        return self.kind(protocol.scores(messages, logits, self.class_weights))

    def draws(self, statistic: Statistic, drawn: Mapping[str, np.ndarray], protocol: Protocol) -> Draws:
        """Draws with the values on all messages and on those of each training."""
        messages = protocol.out_of_fold
        by_training = []
        for training in np.unique(messages.training):
            rows = messages.training == training
            of_training = messages.subset(rows).renumbered()
            by_training += point_values([self.statistic(of_training, protocol, rows)], of_training)
        [points] = point_values([statistic], messages)
        seeds = {name: np.array([values[name] for values in by_training]) for name in points}
        correct = (self.logits.argmax(axis=1) == messages.classes)[None]
        return Draws(values=drawn, seeds=seeds, correct=correct, pooled=points)


def estimates_of(statistic: Statistic, draws: Draws, protocol: Protocol) -> Estimates:
    """Each metric on all out-of-fold messages with its interval, over groups of messages and over trainings."""
    points = draws.pooled or {}
    return with_intervals(points, all_varied(draws, list(points), protocol), statistic.trials, protocol)


def training_deviation(draws: Draws, metric: str) -> float:
    """Standard deviation of a metric between trainings, beyond what the messages of their folds explain (method of moments).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draws = Draws(values={"accuracy": rng.normal(0.9, 0.01, 1000)}, seeds={"accuracy": np.array([0.8, 0.9, 1.0])},
    ...               correct=np.ones((1, 3), dtype=bool))
    >>> round(training_deviation(draws, "accuracy"), 2)
    0.1
    """
    values = draws.seeds[metric]
    if len(values) < 2:
        return 0.0
    # The messages of one fold are a fraction of all.
    of_messages = len(values) * float(draws.values[metric].var())
    return float(np.sqrt(max(0.0, float(values.var(ddof=1)) - of_messages)))


def varied(draws: Draws, metric: str, protocol: Protocol) -> np.ndarray:
    """The draws (resamples,) of a metric with the variation between trainings."""
    drawn: np.ndarray = all_varied(draws, [metric], protocol)[0]
    return drawn


def all_varied(draws: Draws, metrics: Sequence[str], protocol: Protocol) -> np.ndarray:
    """The draws (m, resamples) of m metrics with the variation between trainings."""
    values, trainings = np.stack([draws.values[metric] for metric in metrics]), draws.n_seeds
    deviations = np.array([training_deviation(draws, metric) for metric in metrics])[:, None]
    rng = np.random.default_rng(protocol.seed)
    return values + seed_noise(deviations, trainings, values.shape[1], rng, trainings - 1)
