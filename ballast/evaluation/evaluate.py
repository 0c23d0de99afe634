"""Evaluate one technique from its saved logits: metrics with intervals, priors, calibration, operating point, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ballast.evaluation.adjustment import Adjusted, adjusted, pooled_priors
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.curves import curves
from ballast.evaluation.intervals import intervals, pooled_draws
from ballast.evaluation.metrics import Decisions, Metrics
from ballast.evaluation.prior_grid import prior_grid
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.protocol import Protocol, SeedScores
from ballast.evaluation.statistic import ClassSupport, Statistic, safe_ratio


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
