"""Evaluate a technique from its saved logits: metrics with intervals, priors, calibration, operating point, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ballast.evaluation.adjustment import Adjusted, adjust, pooled_priors
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.curves import curves
from ballast.evaluation.intervals import Points, draws_of, intervals, point_values, pooled_draws
from ballast.evaluation.metrics import Decisions, Metrics
from ballast.evaluation.prior_grid import prior_grid
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.protocol import Protocol, SeedScores
from ballast.evaluation.statistic import ClassSupport, Statistic, safe_ratio


def statistics_by_family(
    adjusted: Sequence[Adjusted], grid: Mapping[str, np.ndarray], protocol: Protocol
) -> dict[str, Sequence[Statistic]]:
    """All measurements on test, one statistic per seed and family.

    Families are raw, corrected, operating_point, post_hoc.<method>, and raw@<ratio>, corrected@<ratio> for the grid of priors.
    """
    ones, weights = np.ones(len(protocol.names)), protocol.production_weights(protocol.test)
    share = protocol.class_shares(protocol.test)
    support = ClassSupport(protocol.test.classes, protocol.test.groups, len(protocol.names))

    def decisions(logits_by_seed: Sequence[np.ndarray], class_weights: np.ndarray) -> list[Statistic]:
        return [Decisions(protocol.test_scores(logits, class_weights), support) for logits in logits_by_seed]

    raw = [Metrics(protocol.test_scores(seed.scores.test, ones), support) for seed in adjusted]
    corrected = [
        # With two classes, a correction of the prior keeps the order of the messages.
        Metrics(protocol.test_scores(seed.test, weights), support, raw_metrics.order if len(protocol.names) == 2 else None)
        for seed, raw_metrics in zip(adjusted, raw, strict=True)
    ]
    families: dict[str, Sequence[Statistic]] = {"raw": raw, "corrected": corrected}
    families["operating_point"] = decisions([seed.preferences(seed.test) for seed in adjusted], weights)
    post_hoc = [seed.post_hoc(protocol) for seed in adjusted]
    for method in post_hoc[0]:
        families[f"post_hoc.{method}"] = decisions([by_method[method] for by_method in post_hoc], weights)
    for ratio, prior in grid.items():
        moved = [correct_prior(seed.scores.test.astype(np.float64), seed.effective, prior) for seed in adjusted]
        families[f"raw@{ratio}"] = decisions([seed.scores.test for seed in adjusted], prior / share)
        families[f"corrected@{ratio}"] = decisions(moved, prior / share)
    return families


def training_recall(logits: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Recall of each class on training messages with logits (n, K) and classes (n,), by label name."""
    support = np.bincount(classes, minlength=len(names))
    hits = np.bincount(classes, weights=logits.argmax(axis=1) == classes, minlength=len(names))
    return dict(zip(names, safe_ratio(hits, support).tolist(), strict=True))


def with_recall_gap(draws: Draws, train_recall: Points, names: Sequence[str]) -> Draws:
    """Draws with one more metric per class: by how much recall falls from training to test."""
    seeds, values = dict(draws.seeds), dict(draws.values)
    for name in names:
        recall = np.array([by_class[name] for by_class in train_recall])
        seeds[f"{name}.recall_gap"] = recall - seeds[f"{name}.recall"]
        values[f"{name}.recall_gap"] = recall.mean() - draws.values[f"{name}.recall"]
    return Draws(values=values, seeds=seeds, correct=draws.correct)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A summary of a technique for JSON, and its draws for comparisons with other techniques."""

    summary: dict[str, Any]
    raw: Draws
    corrected: Draws
    operating_point: Draws


def evaluate(scores: Mapping[int, SeedScores], protocol: Protocol) -> Evaluation:
    """Evaluate a technique from its logits by seed.

    `raw` numbers describe the test split and the posteriors as they are. `corrected` numbers put the posteriors on the
    production prior and weight the test split to it. Both assign each message to its most probable class. `operating_point`
    decides by the corrected posteriors at each seed's own operating point.
    """
    by_seed = {seed: adjust(seed_scores, protocol) for seed, seed_scores in scores.items()}
    adjusted, grid = list(by_seed.values()), prior_grid(protocol.class_shares(protocol.test))
    families = statistics_by_family(adjusted, grid, protocol)
    points = {family: point_values(statistics, protocol) for family, statistics in families.items()}
    draws = pooled_draws(families, protocol)
    estimates = {family: intervals(families[family], points[family], draws[family], protocol) for family in families}
    summary = {
        "labels": list(protocol.names),
        "production_prior": protocol.named(protocol.production_prior),
        "seeds": seed_summaries(by_seed, points, protocol),
        "pooled": {
            **{family: estimates[family] for family in ("raw", "corrected", "operating_point")},
            **pooled_priors(list(scores.values()), protocol),
        },
        "post_hoc": {
            family.removeprefix("post_hoc."): estimate
            for family, estimate in estimates.items()
            if family.startswith("post_hoc.")
        },
        "prior_grid": {ratio: {family: estimates[f"{family}@{ratio}"] for family in ("raw", "corrected")} for ratio in grid},
        "curves": curves(adjusted[0].test, protocol),
    }
    return Evaluation(summary=summary, **comparison_draws(adjusted, points, draws, protocol))


def seed_summaries(
    by_seed: Mapping[int, Adjusted], points: Mapping[str, Points], protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """What was fitted and measured for each seed, for JSON."""
    return {
        str(seed): {
            **adjusted.as_json(protocol, points["operating_point"][position]),
            "raw": points["raw"][position],
            "corrected": points["corrected"][position],
        }
        for position, (seed, adjusted) in enumerate(by_seed.items())
    }


def comparison_draws(
    adjusted: Sequence[Adjusted],
    points: Mapping[str, Points],
    draws: Mapping[str, Mapping[str, np.ndarray]],
    protocol: Protocol,
) -> dict[str, Draws]:
    """Draws by family: raw, corrected and operating_point."""
    train = {
        "raw": [seed.scores.train for seed in adjusted],
        "corrected": [correct_prior(seed.scores.train, seed.effective, protocol.production_prior) for seed in adjusted],
    }
    preferences = {
        "raw": [seed.scores.test for seed in adjusted],
        "corrected": [seed.test for seed in adjusted],
        "operating_point": [seed.preferences(seed.test) for seed in adjusted],
    }
    by_family = {family: draws_of(draws[family], points[family], scores, protocol) for family, scores in preferences.items()}
    for family, logits_by_seed in train.items():
        recall = [
            training_recall(logits, seed.scores.train_classes, protocol.names)
            for logits, seed in zip(logits_by_seed, adjusted, strict=True)
        ]
        by_family[family] = with_recall_gap(by_family[family], recall, protocol.names)
    return by_family
