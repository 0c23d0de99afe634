"""Variation between the trainings of a cross-validation, beyond what the messages of the folds explain.

A bootstrap over all tested messages takes the trainings as given. The folds show how much these vary: the values of techniques
differ between folds by more than the messages of a fold explain. The training sets of folds overlap, so that the variance of a
mean over J folds is that of a training times 1/J + n_test/n_train = 1/J + 1/(J - 1) (Nadeau and Bengio, Inference for the
Generalization Error, 2003).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ballast.evaluation.bootstrap import Draws, SeedError
from ballast.evaluation.intervals import point_values
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.protocol import Protocol
from ballast.evaluation.seed_variation import error_draws

Name = TypeVar("Name", bound=str)


def fold_values(
    logits: Sequence[np.ndarray], folds: Sequence[np.ndarray], class_weights: np.ndarray, protocol: Protocol
) -> dict[str, np.ndarray]:
    """The metrics of decisions by fold: metric -> (B, J), for B repeats of J folds, the mean over the seeds of a repeat.

    logits : (n, K) of the test messages, the seeds of the first repeat first.
    folds : (n,) the fold of each message, from 0, one array for each repeat.
    class_weights : (K,) weight of the messages of each class.
    """
    seeds = len(logits) // len(folds)
    values: dict[str, list[float]] = {}
    for repeat, fold_of in enumerate(folds):
        for fold in range(int(fold_of.max()) + 1):
            inside = fold_of == fold
            messages = protocol.test.subset(inside).renumbered()
            own = logits[repeat * seeds : (repeat + 1) * seeds]
            points = point_values([Decisions(protocol.scores(messages, each[inside], class_weights)) for each in own], messages)
            for metric in points[0]:
                values.setdefault(metric, []).append(float(np.mean([point[metric] for point in points])))
    return {metric: np.reshape(by_fold, (len(folds), -1)) for metric, by_fold in values.items()}


def training_variances(by_fold: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Variance (T,) between trainings of T techniques, beyond the messages; it may be negative by chance (method of moments).

    by_fold : (T, B, J) values of a metric by technique, repeat and fold.
    draws : (T, resamples) bootstrap draws of the metric over the messages of all folds.

    Notes
    -----
    Both are centred over the techniques, which removes how easy a fold is. A fold has 1/J of the messages, and so J times the
    variance of all of them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> messages, trainings = rng.normal(0, 0.02, (50, 1, 200)), rng.normal(0, 0.01, (50, 1, 200))
    >>> draws = rng.normal(0, 0.02 / 200**0.5, (50, 1000))
    >>> round(float(training_variances(messages + trainings, draws).mean()) ** 0.5, 2)
    0.01
    """
    techniques, _, count = by_fold.shape
    factor = 1.0
    if techniques > 1:
        by_fold, draws = by_fold - by_fold.mean(axis=0), draws - draws.mean(axis=0)
        factor = techniques / (techniques - 1)
    return factor * (by_fold.var(axis=2, ddof=1).mean(axis=1) - count * draws.var(axis=1))


def overlap(folds: int) -> float:
    """The variance of a mean over folds, relative to that of one training: 1/J + n_test/n_train."""
    return 1 / folds + 1 / (folds - 1)


def training_errors(by_fold: np.ndarray, draws: np.ndarray) -> list[SeedError]:
    """The standard error of each technique's mean over the folds that comes from its trainings; arguments as above.

    A variance of few folds is often too small by chance. So it is the technique's own or the mean of all techniques, whichever
    is larger, with its degrees of freedom.
    """
    techniques, repeats, count = by_fold.shape
    variances, degrees = training_variances(by_fold, draws), repeats * (count - 1)
    pooled = max(0.0, float(variances.mean()))
    return [
        SeedError(
            value=float(np.sqrt(max(own, pooled) * overlap(count) / repeats)),
            degrees=degrees if own > pooled else degrees * max(1, techniques - 1),
        )
        for own in variances
    ]


def with_training_error(value: float, deviation: float, by_fold: np.ndarray) -> float:
    """The standard deviation of an estimate from all folds, including the variation between trainings.

    deviation : of `value` over the messages.
    by_fold : (J,) the estimates of the folds.

    Examples
    --------
    >>> with_training_error(0.0, 0.1, np.zeros(5))
    0.1
    >>> round(with_training_error(0.0, 0.1, np.array([-1.0, -0.5, 0.0, 0.5, 1.0])), 2)
    0.52
    """
    count = len(by_fold)
    variance = max(0.0, float(np.mean((by_fold - value) ** 2)) * count / (count - 1) - count * deviation**2)
    return float(np.sqrt(deviation**2 + variance * overlap(count)))


def with_fold_variation(
    techniques: Mapping[Name, Draws], by_fold: Mapping[Name, Mapping[str, np.ndarray]]
) -> dict[Name, Draws]:
    """Add the variation between the trainings of folds to the bootstrap draws of each technique.

    by_fold : technique -> metric -> (B, J) values, as `fold_values` gives them. Other metrics are left unchanged.

    The noise of techniques is independent. Trainings on the same fold share their messages, which makes this conservative.
    """
    names = list(techniques)
    errors: dict[Name, dict[str, SeedError]] = {name: {} for name in names}
    for metric in next(iter(by_fold.values())):
        values = np.stack([by_fold[name][metric] for name in names])
        draws = np.stack([techniques[name].values[metric] for name in names])
        for name, error in zip(names, training_errors(values, draws), strict=True):
            errors[name][metric] = error
    varied = {}
    for name, draws_of_name in techniques.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        noisy = {
            metric: drawn + error_draws(errors[name][metric], len(drawn), rng) if metric in errors[name] else drawn
            for metric, drawn in draws_of_name.values.items()
        }
        varied[name] = replace(draws_of_name, values=noisy, sampling=draws_of_name.values, seed_errors=errors[name])
    return varied
