"""Evaluate one technique from its saved logits: metrics with intervals, priors, calibration, operating point, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from ballast.evaluation.bootstrap import Draws, bootstrap_draws, percentile_interval, seed_noise, wilson_interval
from ballast.evaluation.calibration import Calibration, fit_calibration
from ballast.evaluation.metrics import (
    CALIBRATION_BINS,
    ClassSupport,
    Decisions,
    LabelledScores,
    Metrics,
    Statistic,
    bounds,
    f1_of_jaccard,
    one_vs_rest,
    safe_ratio,
    stack_columns,
    weighted_sums,
)
from ballast.evaluation.operating_point import OperatingPoint, Rule, choose_operating_point, expected_costs, named_costs
from ballast.evaluation.post_hoc import LinearHead, SplitLogits, post_hoc_logits
from ballast.evaluation.prior_grid import prior_grid
from ballast.evaluation.priors import FittedPrior, correct_prior, effective_prior, fit_prior

# Points of a curve: enough for a smooth line, few enough for a page with dozens of techniques.
CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled messages of a split: classes (n,), groups (n,) numbered from 0."""

    classes: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """One seed's logits (n, K) of validation, of test and of some training messages with their classes, its declared prior (K,)
    or None, and its head's norms and bias where it has a linear one.
    """

    validation: np.ndarray
    test: np.ndarray
    train: np.ndarray
    train_classes: np.ndarray
    declared_prior: np.ndarray | None
    head: LinearHead | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is the same for every technique: labels, splits, the production prior (K,), the operating rule, the bootstrap."""

    names: Sequence[str]
    validation: Labelled
    test: Labelled
    production_prior: np.ndarray
    resamples: int
    confidence: float
    seed: int
    rule: Rule = field(default_factory=Rule)

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Values (K,) by label name."""
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def class_shares(self, split: Labelled) -> np.ndarray:
        """Share (K,) of each class in a split."""
        return np.bincount(split.classes, minlength=len(self.names)) / len(split.classes)

    def production_weights(self, split: Labelled) -> np.ndarray:
        """Weight (K,) of each class's messages that gives the shares of production; 1 where they are the split's own."""
        share = self.class_shares(split)
        stratified = np.abs(share - self.production_prior).max() < 1 / len(split.classes)
        return np.ones(len(self.names)) if stratified else self.production_prior / share

    def scored(self, logits: np.ndarray, class_weights: np.ndarray) -> LabelledScores:
        """The test split with logits (n, K) and the weight (K,) of each class's messages."""
        return LabelledScores(self.names, self.test.classes, logits, self.test.groups, class_weights)


def pooled_draws(families: Mapping[str, Sequence[Statistic]], protocol: Protocol) -> dict[str, dict[str, np.ndarray]]:
    """Bootstrap draws (resamples,) of each metric's mean over seeds, by family; a family holds one statistic a seed.

    All families, of all techniques, see the same resamples of the groups of test messages, so that differences are paired.
    """
    keys = [(family, at) for family, by_seed in families.items() for at in range(len(by_seed))]
    each = [families[family][at] for family, at in keys]
    ends = np.cumsum([statistic.sums.shape[1] for statistic in each])[:-1]
    stacked = stack_columns([statistic.sums for statistic in each], np.float32)

    def of_resamples(counts: np.ndarray) -> dict[tuple[str, str, int], np.ndarray]:
        pieces = np.split(weighted_sums(counts, stacked).astype(np.float64), ends, axis=1)
        return {
            (family, name, at): values
            for (family, at), statistic, piece in zip(keys, each, pieces, strict=True)
            for name, values in statistic.of_sums(piece, counts).items()
        }

    drawn = bootstrap_draws(of_resamples, int(protocol.test.groups.max()) + 1, protocol.resamples, protocol.seed)
    means: dict[str, dict[str, np.ndarray]] = {family: {} for family in families}
    for (family, name, _), values in drawn.items():
        means[family][name] = means[family].get(name, 0) + values / len(families[family])
    return means


def intervals(
    statistics: Sequence[Statistic],
    points: Sequence[Mapping[str, float]],
    draws: Mapping[str, np.ndarray],
    protocol: Protocol,
) -> dict[str, dict[str, float]]:
    """Each metric's mean over seeds with its interval: over groups of test messages and, from three seeds on, over seeds."""
    found = {}
    for name in points[0]:
        by_seed = np.array([point[name] for point in points])
        value, seeds = float(by_seed.mean()), len(by_seed)
        deviation = float(by_seed.std(ddof=1)) if seeds > 1 else 0.0
        rng = np.random.default_rng(protocol.seed)
        varied = draws[name] + seed_noise(deviation, seeds, protocol.resamples, rng, seeds - 1)
        trials = [each.trials[name] for each in statistics if name in each.trials]
        found[name] = (
            # The number of messages is no estimate.
            {"value": value, "low": value, "high": value}
            if name.endswith(".support")
            else with_interval(name, value, varied, float(np.mean(trials)) if trials else None, protocol)
        )
    return found


def with_interval(name: str, value: float, draws: np.ndarray, trials: float | None, protocol: Protocol) -> dict[str, float]:
    """A metric's value, low and high.

    A proportion that is 0 or 1 has no spread in the bootstrap and gets Wilson's interval over its `trials`: groups seen, not
    what they weigh.
    """
    if trials is not None and value in (0.0, 1.0):
        low, high = wilson_interval(value, trials, protocol.confidence)
        if name.endswith(".f1"):
            low, high = f1_of_jaccard(low), f1_of_jaccard(high)
    else:
        low, high = percentile_interval(draws, protocol.confidence)
    least, most = bounds(name)
    return {"value": value, "low": max(least, min(low, value)), "high": min(most, max(high, value))}


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
    precision, recall = safe_ratio(hits, assigned)[chosen], (hits / hits[-1])[chosen]
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


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """One seed's scores after its effective prior and calibration were fitted on validation."""

    scores: SeedScores
    fitted: FittedPrior
    effective: np.ndarray
    calibration: Calibration
    operating_point: OperatingPoint
    validation: np.ndarray
    test: np.ndarray

    def preferences(self, logits: np.ndarray) -> np.ndarray:
        """Expected costs (n, K) of corrected logits (n, K) at the operating point, less being more: their argmax decides."""
        return -expected_costs(softmax(logits, axis=1), self.operating_point.costs)

    def as_json(self, protocol: Protocol, decided: Mapping[str, float]) -> dict[str, Any]:
        """Everything that was fitted, by label name; `decided` are the metrics of the operating point on test."""
        declared = self.scores.declared_prior
        return {
            "declared_prior": None if declared is None else protocol.named(declared),
            "fitted_prior": fitted_as_json(self.fitted, protocol),
            "effective_prior": protocol.named(self.effective),
            "calibration": {"temperature": self.calibration.temperature, "bias": protocol.named(self.calibration.bias)},
            "operating_point": {**self.operating_point_as_json(protocol), "test": decided},
            "confusion": {"raw": confusion(self.scores.test, protocol), "corrected": confusion(self.test, protocol)},
        }

    def operating_point_as_json(self, protocol: Protocol) -> dict[str, Any]:
        """The operating point by label name, and what it gives on validation."""
        split, rule = protocol.validation, protocol.rule
        weights = protocol.production_weights(split)
        on_validation = Decisions(
            LabelledScores(protocol.names, split.classes, self.preferences(self.validation), split.groups, weights)
        )
        everything = np.ones((1, int(split.groups.max()) + 1))
        return {
            "rule": rule.kind,
            "label": None if rule.kind in ("macro_f1", "cost") else protocol.names[rule.label],
            "limit": rule.limit,
            "met": self.operating_point.met,
            "costs": named_costs(self.operating_point.costs, protocol.names),
            "validation": {name: float(value[0]) for name, value in on_validation(everything).items()},
        }

    def post_hoc(self, protocol: Protocol) -> dict[str, np.ndarray]:
        """Test logits (n, K) of the arms that need no training."""
        scores = SplitLogits(
            validation=self.scores.validation.astype(np.float64),
            classes=protocol.validation.classes,
            test=self.scores.test.astype(np.float64),
        )
        return post_hoc_logits(scores, self.effective, self.calibration, protocol.production_prior, self.scores.head)


def adjusted(scores: SeedScores, protocol: Protocol) -> Adjusted:
    """Fit the effective prior and the calibration on validation; correct all logits to the production prior."""
    validation = protocol.validation
    logits = scores.validation.astype(np.float64)
    fitted = fit_prior(logits, validation.classes, validation.groups, confidence=protocol.confidence)
    effective = effective_prior(scores.declared_prior, fitted)
    corrected = correct_prior(logits, effective, protocol.production_prior)
    return Adjusted(
        scores=scores,
        fitted=fitted,
        effective=effective,
        calibration=fit_calibration(logits, validation.classes),
        operating_point=choose_operating_point(
            protocol.rule, corrected, validation.classes, protocol.production_weights(validation)
        ),
        validation=corrected,
        test=correct_prior(scores.test.astype(np.float64), effective, protocol.production_prior),
    )


def pooled_priors(scores: Sequence[SeedScores], protocol: Protocol) -> dict[str, Any]:
    """The declared prior, the mean over seeds, and the prior fitted on all seeds' validation logits.

    A technique is safe where that agrees with the production prior: its posteriors can then be used as they are; None where
    the measurement cannot tell.
    """
    declared = [each.declared_prior for each in scores if each.declared_prior is not None]
    fitted = fit_prior(
        np.concatenate([each.validation for each in scores]).astype(np.float64),
        np.tile(protocol.validation.classes, len(scores)),
        np.tile(protocol.validation.groups, len(scores)),
        confidence=protocol.confidence,
        copies=len(scores),
    )
    return {
        "declared_prior": protocol.named(np.mean(declared, axis=0)) if declared else None,
        "fitted_prior": fitted_as_json(fitted, protocol),
        "safe": fitted.agrees(protocol.production_prior),
    }


def statistics(
    fitted: Sequence[Adjusted], grid: Mapping[str, np.ndarray], protocol: Protocol
) -> dict[str, Sequence[Statistic]]:
    """Everything that is measured on test, one statistic a seed: raw, corrected, the operating point, the post hoc arms, the
    grid of priors.
    """
    ones, weights = np.ones(len(protocol.names)), protocol.production_weights(protocol.test)
    share = protocol.class_shares(protocol.test)
    members = ClassSupport(protocol.test.classes, protocol.test.groups, len(protocol.names))

    def decisions(logits: Sequence[np.ndarray], class_weights: np.ndarray) -> list[Statistic]:
        return [Decisions(protocol.scored(each, class_weights), members) for each in logits]

    raw = [Metrics(protocol.scored(each.scores.test, ones), members) for each in fitted]
    corrected = [
        # Of two classes a correction keeps the order of the messages.
        Metrics(protocol.scored(each.test, weights), members, of_raw.order if len(protocol.names) == 2 else None)
        for each, of_raw in zip(fitted, raw, strict=True)
    ]
    families: dict[str, Sequence[Statistic]] = {"raw": raw, "corrected": corrected}
    families["operating_point"] = decisions([each.preferences(each.test) for each in fitted], weights)
    by_arm = [each.post_hoc(protocol) for each in fitted]
    for arm in by_arm[0]:
        families[f"post_hoc.{arm}"] = decisions([each[arm] for each in by_arm], weights)
    for ratio_name, prior in grid.items():
        moved = [correct_prior(each.scores.test.astype(np.float64), each.effective, prior) for each in fitted]
        families[f"raw@{ratio_name}"] = decisions([each.scores.test for each in fitted], prior / share)
        families[f"corrected@{ratio_name}"] = decisions(moved, prior / share)
    return families


def training_recall(logits: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Recall of each class among training messages with logits (n, K) and classes (n,), by label name."""
    members = np.bincount(classes, minlength=len(names))
    hits = np.bincount(classes, weights=logits.argmax(axis=1) == classes, minlength=len(names))
    return dict(zip(names, safe_ratio(hits, members).tolist(), strict=True))


def known_of(
    draws: Mapping[str, np.ndarray],
    points: Sequence[Mapping[str, float]],
    test: Sequence[np.ndarray],
    trained: Sequence[Mapping[str, float]],
    protocol: Protocol,
) -> Draws:
    """What a comparison needs: draws and points of test, and by how much each class's recall falls from training to test."""
    seeds = {name: np.array([point[name] for point in points]) for name in points[0]}
    values = dict(draws)
    for name in protocol.names:
        recalls = np.array([each[name] for each in trained])
        seeds[f"{name}.recall_gap"] = recalls - seeds[f"{name}.recall"]
        values[f"{name}.recall_gap"] = recalls.mean() - draws[f"{name}.recall"]
    return Draws(values=values, seeds=seeds, correct=np.stack([each.argmax(axis=1) == protocol.test.classes for each in test]))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of a technique: a summary for JSON, and what a comparison with others needs, raw, corrected and decided."""

    summary: dict[str, Any]
    raw: Draws
    corrected: Draws
    operating_point: Draws


def evaluate(scores: Mapping[int, SeedScores], protocol: Protocol) -> Evaluation:
    """Everything that is known of a technique from its logits by seed.

    `raw` numbers describe the test split and posteriors as they are; `corrected` numbers put the posteriors on the
    production prior and weigh the test split to it. Both assign each message to its most probable class; `operating_point`
    decides by the corrected posteriors at each seed's own operating point.
    """
    by_seed = {seed: adjusted(each, protocol) for seed, each in scores.items()}
    fitted, grid = list(by_seed.values()), prior_grid(protocol.class_shares(protocol.test))
    families = statistics(fitted, grid, protocol)
    everything = np.ones((1, int(protocol.test.groups.max()) + 1))
    points = {
        family: [{name: float(value[0]) for name, value in each(everything).items()} for each in of_seeds]
        for family, of_seeds in families.items()
    }
    draws = pooled_draws(families, protocol)
    found = {family: intervals(families[family], points[family], draws[family], protocol) for family in families}
    seeds = {
        str(seed): {
            **each.as_json(protocol, points["operating_point"][at]),
            "raw": points["raw"][at],
            "corrected": points["corrected"][at],
        }
        for at, (seed, each) in enumerate(by_seed.items())
    }
    summary = {
        "labels": list(protocol.names),
        "production_prior": protocol.named(protocol.production_prior),
        "seeds": seeds,
        "pooled": {
            **{family: found[family] for family in ("raw", "corrected", "operating_point")},
            **pooled_priors(list(scores.values()), protocol),
        },
        "post_hoc": {
            family.removeprefix("post_hoc."): each for family, each in found.items() if family.startswith("post_hoc.")
        },
        "prior_grid": {name: {family: found[f"{family}@{name}"] for family in ("raw", "corrected")} for name in grid},
        "curves": curves(fitted[0].test, protocol),
    }
    train = {
        "raw": [each.scores.train for each in fitted],
        "corrected": [correct_prior(each.scores.train, each.effective, protocol.production_prior) for each in fitted],
    }
    test = {"raw": [each.scores.test for each in fitted], "corrected": [each.test for each in fitted]}
    known = {}
    for family in ("raw", "corrected"):
        trained = [
            training_recall(logits, each.scores.train_classes, protocol.names)
            for logits, each in zip(train[family], fitted, strict=True)
        ]
        known[family] = known_of(draws[family], points[family], test[family], trained, protocol)
    decided = points["operating_point"]
    known["operating_point"] = Draws(
        values=draws["operating_point"],
        seeds={name: np.array([point[name] for point in decided]) for name in decided[0]},
        correct=np.stack([each.preferences(each.test).argmax(axis=1) == protocol.test.classes for each in fitted]),
    )
    return Evaluation(summary=summary, **known)
