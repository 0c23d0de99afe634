"""Evaluate one technique from its saved logits: metrics with intervals, effective prior, calibration, thresholds, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from ballast.bootstrap import percentile_interval, resampled, wilson_interval
from ballast.calibration import Calibration, fit_calibration
from ballast.metrics import CALIBRATION_BINS, Metrics, Scored, one_vs_rest, ratio
from ballast.operating_point import f1_threshold
from ballast.priors import FittedPrior, correct, effective_prior, fit_prior

# Points of a curve: enough for a smooth line, few enough for a page with dozens of techniques.
CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled messages of a split: classes (n,), groups (n,) numbered from 0."""

    classes: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """One seed's logits (n, K) of validation and test, and its declared prior (K,) or None."""

    validation: np.ndarray
    test: np.ndarray
    declared_prior: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is the same for every technique: labels, splits, the production prior (K,), the bootstrap."""

    names: Sequence[str]
    validation: Labelled
    test: Labelled
    production_prior: np.ndarray
    resamples: int
    confidence: float
    seed: int

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Values (K,) by label name."""
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def production_weights(self) -> np.ndarray:
        """Weights (n,) that give the test split the class shares of production; 1 where they are its own."""
        share = np.bincount(self.test.classes, minlength=len(self.names)) / len(self.test.classes)
        stratified = np.abs(share - self.production_prior).max() < 1 / len(self.test.classes)
        weights = np.ones(len(self.names)) if stratified else self.production_prior / share
        return weights[self.test.classes]


def intervals(metrics: Sequence[Metrics], protocol: Protocol) -> dict[str, dict[str, float]]:
    """Each metric's mean over the seeds' `metrics`, with its bootstrap interval over groups of test messages.

    Every seed sees the same resamples, so the interval covers the test sample and not the variation between seeds.
    """
    groups = int(protocol.test.groups.max()) + 1

    def mean_over_seeds(counts: np.ndarray) -> dict[str, np.ndarray]:
        values = [each(counts) for each in metrics]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    point = {name: float(value[0]) for name, value in mean_over_seeds(np.ones((1, groups))).items()}
    draws = resampled(mean_over_seeds, groups, protocol.resamples, protocol.seed)
    trials = {"accuracy": float(len(protocol.test.classes))}
    for label, name in enumerate(protocol.names):
        trials[f"{name}.recall"] = float(metrics[0].members[label])
        trials[f"{name}.precision"] = float(np.mean([each.assigned[label] for each in metrics]))
    return {
        # The number of messages is no estimate.
        name: {"value": value, "low": value, "high": value}
        if name.endswith(".support")
        else with_interval(value, draws[name], trials.get(name), protocol)
        for name, value in point.items()
    }


def with_interval(value: float, draws: np.ndarray, trials: float | None, protocol: Protocol) -> dict[str, float]:
    """A metric's value, low and high.

    A proportion that is 0 or 1 has no spread in the bootstrap and gets Wilson's interval over its `trials`: messages seen, not
    what they weigh.
    """
    if trials is not None and value in (0.0, 1.0):
        low, high = wilson_interval(value, trials, protocol.confidence)
    else:
        low, high = percentile_interval(draws, protocol.confidence)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def fitted_as_json(fitted: FittedPrior, protocol: Protocol) -> dict[str, dict[str, float]]:
    """A fitted prior by label: value, low, high."""
    ends = zip(fitted.prior, fitted.low, fitted.high, strict=True)
    return {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, (value, low, high) in zip(protocol.names, ends, strict=True)
    }


def precision_recall_curve(log_odds: np.ndarray, positive: np.ndarray) -> dict[str, list[float]]:
    """Recall and precision at falling thresholds, thinned: log_odds (n,), positive (n,) booleans."""
    scores, rank = np.unique(log_odds, return_inverse=True)
    hits = np.cumsum(np.bincount(rank, weights=positive)[::-1])
    assigned = np.cumsum(np.bincount(rank)[::-1])
    chosen = np.unique(np.linspace(0, len(scores) - 1, CURVE_POINTS).astype(int))
    chosen = np.union1d(chosen, np.searchsorted(hits, np.linspace(1, hits[-1], CURVE_POINTS // 2)))
    precision, recall = ratio(hits, assigned)[chosen], (hits / hits[-1])[chosen]
    return {"recall": [round(float(x), 6) for x in recall], "precision": [round(float(x), 6) for x in precision]}


def calibration_curve(probability: np.ndarray, positive: np.ndarray) -> dict[str, list[float]]:
    """Mean probability, share of the class and messages in each bin that holds any; equal-width bins."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    held = count > 0
    mean = np.bincount(bins, weights=probability, minlength=CALIBRATION_BINS)[held] / count[held]
    share = np.bincount(bins, weights=positive, minlength=CALIBRATION_BINS)[held] / count[held]
    return {"mean_probability": mean.round(6).tolist(), "share": share.round(6).tolist(), "messages": count[held].tolist()}


def curves(logits: np.ndarray, protocol: Protocol) -> dict[str, Any]:
    """Precision-recall and calibration curve of each class from logits (n, K)."""
    log_posterior = log_softmax(logits, axis=1)
    made: dict[str, Any] = {"precision_recall": {}, "calibration": {}}
    for label, name in enumerate(protocol.names):
        positive = protocol.test.classes == label
        made["precision_recall"][name] = precision_recall_curve(one_vs_rest(log_posterior, label), positive)
        made["calibration"][name] = calibration_curve(np.exp(log_posterior[:, label]), positive)
    return made


def confusion(logits: np.ndarray, protocol: Protocol) -> list[list[int]]:
    """Test messages by class (rows) and predicted class (columns)."""
    classes = len(protocol.names)
    cells = np.bincount(protocol.test.classes * classes + logits.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes).tolist()


def thresholds(validation: np.ndarray, test: np.ndarray, protocol: Protocol) -> dict[str, dict[str, float]]:
    """For each class the threshold with the best F1 on validation, and what it gives on test; corrected logits (n, K)."""
    made = {}
    for label, name in enumerate(protocol.names):
        scores = one_vs_rest(log_softmax(validation, axis=1), label)
        threshold = f1_threshold(scores, protocol.validation.classes == label)
        assigned = softmax(test, axis=1)[:, label] >= threshold
        positive = protocol.test.classes == label
        hits = float((assigned & positive).sum())
        made[name] = {
            "threshold": threshold,
            "precision": float(ratio(np.array(hits), np.array(assigned.sum()))),
            "recall": hits / float(positive.sum()),
            "f1": 2 * hits / float(assigned.sum() + positive.sum()),
        }
    return made


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """One seed's scores after its effective prior and calibration were fitted on validation."""

    scores: SeedScores
    fitted: FittedPrior
    effective: np.ndarray
    calibration: Calibration
    validation: np.ndarray
    test: np.ndarray

    def as_json(self, protocol: Protocol) -> dict[str, Any]:
        """Everything that was fitted, by label name."""
        declared = self.scores.declared_prior
        return {
            "declared_prior": None if declared is None else protocol.named(declared),
            "fitted_prior": fitted_as_json(self.fitted, protocol),
            "effective_prior": protocol.named(self.effective),
            "calibration": {"temperature": self.calibration.temperature, "bias": protocol.named(self.calibration.bias)},
            "thresholds": thresholds(self.validation, self.test, protocol),
            "confusion": {"raw": confusion(self.scores.test, protocol), "corrected": confusion(self.test, protocol)},
        }


def adjusted(scores: SeedScores, protocol: Protocol) -> Adjusted:
    """Fit the effective prior and the calibration on validation; correct all logits to the production prior."""
    validation = protocol.validation
    logits = scores.validation.astype(np.float64)
    fitted = fit_prior(logits, validation.classes, validation.groups, confidence=protocol.confidence)
    effective = effective_prior(scores.declared_prior, fitted)
    return Adjusted(
        scores=scores,
        fitted=fitted,
        effective=effective,
        calibration=fit_calibration(logits, validation.classes),
        validation=correct(logits, effective, protocol.production_prior),
        test=correct(scores.test.astype(np.float64), effective, protocol.production_prior),
    )


def evaluate(scores: Mapping[int, SeedScores], protocol: Protocol) -> dict[str, Any]:
    """Everything that is known of a technique from its logits by seed.

    `raw` numbers describe the test split and posteriors as they are; `corrected` numbers put the posteriors on the
    production prior and weigh the test split to it.
    """
    test = protocol.test
    by_seed = {seed: adjusted(each, protocol) for seed, each in scores.items()}
    ones, weights = np.ones(len(test.classes)), protocol.production_weights()
    families = {
        "raw": [
            Metrics(Scored(protocol.names, test.classes, each.scores.test, test.groups, ones)) for each in by_seed.values()
        ],
        "corrected": [
            Metrics(Scored(protocol.names, test.classes, each.test, test.groups, weights)) for each in by_seed.values()
        ],
    }
    first = next(iter(by_seed.values()))
    declared = [each.declared_prior for each in scores.values() if each.declared_prior is not None]
    pooled: dict[str, Any] = {name: intervals(metrics, protocol) for name, metrics in families.items()}
    pooled["declared_prior"] = protocol.named(np.mean(declared, axis=0)) if declared else None
    repeats = len(by_seed)
    pooled["fitted_prior"] = fitted_as_json(
        fit_prior(
            np.concatenate([each.scores.validation for each in by_seed.values()]).astype(np.float64),
            np.tile(protocol.validation.classes, repeats),
            np.tile(protocol.validation.groups, repeats),
            confidence=protocol.confidence,
        ),
        protocol,
    )
    seeds = {}
    for at, (seed, each) in enumerate(by_seed.items()):
        point = {
            name: {metric: float(value[0]) for metric, value in metrics[at](np.ones((1, int(test.groups.max()) + 1))).items()}
            for name, metrics in families.items()
        }
        seeds[str(seed)] = {**each.as_json(protocol), **point}
    return {
        "labels": list(protocol.names),
        "production_prior": protocol.named(protocol.production_prior),
        "seeds": seeds,
        "pooled": pooled,
        "curves": curves(first.test, protocol),
    }
