"""Evaluate a technique from its saved logits: metrics with intervals, priors, calibration, operating point, curves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import log_softmax

from ballast.evaluation.adjustment import Adjusted, adjust
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.cost_curve import cost_curve
from ballast.evaluation.curves import confusion, curves
from ballast.evaluation.intervals import Points, Resampled, draws_of, intervals, point_values, pooled_draws
from ballast.evaluation.metrics import Decisions, Metrics
from ballast.evaluation.out_of_fold import out_of_fold_estimates
from ballast.evaluation.prior_grid import prior_grid
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.protocol import Protocol, SeedScores
from ballast.evaluation.ranking import one_vs_rest
from ballast.evaluation.review_curve import review_curve
from ballast.evaluation.statistic import ClassSupport, Statistic, safe_ratio

# Resamples for the intervals of a curve, which no claim rests on.
CURVE_RESAMPLES = 200
# Columns of sums that are resampled together: one batch for the families of a few classes, several for those of many.
COLUMNS_AT_ONCE = 2048
# Families whose draws a comparison of techniques needs.
COMPARED = ("raw", "corrected", "operating_point")


def statistics_by_family(
    adjusted: Adjusted, grid: Mapping[str, np.ndarray], protocol: Protocol
) -> Iterator[tuple[str, Sequence[Statistic]]]:
    """All measurements on test, one statistic per seed and family, computed one family after another.

    Families are raw, corrected, operating_point, ensemble (one statistic for all seeds), post_hoc.<method>, and raw@<ratio>,
    corrected@<ratio> for the grid of priors.
    """
    ones, weights = np.ones(len(protocol.names)), protocol.production_weights(protocol.test)
    share = protocol.class_shares(protocol.test)
    support = ClassSupport(protocol.test.classes, protocol.test.groups, len(protocol.names))
    uncorrected = [seed.test for seed in adjusted.scores]

    def decisions(logits_by_seed: Sequence[np.ndarray], class_weights: np.ndarray) -> list[Statistic]:
        return [Decisions(protocol.test_scores(logits, class_weights), support) for logits in logits_by_seed]

    raw = [Metrics(protocol.test_scores(logits, ones), support) for logits in uncorrected]
    yield "raw", raw
    yield (
        "corrected",
        [
            # With two classes, a correction of the prior keeps the order of the messages.
            Metrics(protocol.test_scores(logits, weights), support, of_raw.order if len(protocol.names) == 2 else None)
            for logits, of_raw in zip(adjusted.test, raw, strict=True)
        ],
    )
    yield "operating_point", decisions([adjusted.fit.preferences(logits) for logits in adjusted.test], weights)
    # The mean of the logits of all seeds, with the prior and operating point of single models.
    yield "ensemble", decisions([adjusted.fit.preferences(np.mean(adjusted.test, axis=0))], weights)
    for method, logits_by_seed in adjusted.post_hoc(protocol).items():
        yield f"post_hoc.{method}", decisions(logits_by_seed, weights)
    for ratio, prior in grid.items():
        moved = [correct_prior(logits.astype(np.float64), adjusted.fit.effective, prior) for logits in uncorrected]
        yield f"raw@{ratio}", decisions(uncorrected, prior / share)
        yield f"corrected@{ratio}", decisions(moved, prior / share)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured on test of some families: points by seed, estimates with intervals, and draws of some of them."""

    points: dict[str, Points]
    estimates: dict[str, dict[str, dict[str, float]]]
    draws: dict[str, Resampled]


def measure(families: Iterable[tuple[str, Sequence[Statistic]]], with_draws: Collection[str], protocol: Protocol) -> Measured:
    """Points and intervals of families of statistics. Draws stay in memory only for the families `with_draws`."""
    measured = Measured(points={}, estimates={}, draws={})
    for batch in batches(families):
        points = {family: point_values(statistics, protocol.test) for family, statistics in batch.items()}
        drawn = pooled_draws(batch, protocol.test, protocol)
        measured.points.update(points)
        measured.estimates.update(
            {family: intervals(batch[family], points[family], drawn[family], protocol) for family in batch}
        )
        measured.draws.update({family: drawn[family] for family in batch if family in with_draws})
    return measured


def batches(families: Iterable[tuple[str, Sequence[Statistic]]]) -> Iterator[dict[str, Sequence[Statistic]]]:
    """Families in batches whose sums have about COLUMNS_AT_ONCE columns: a batch is one matrix product."""
    batch: dict[str, Sequence[Statistic]] = {}
    width = 0
    for family, statistics in families:
        batch[family] = statistics
        width += sum(statistic.sums.shape[1] for statistic in statistics)
        if width >= COLUMNS_AT_ONCE:
            yield batch
            batch, width = {}, 0
    if batch:
        yield batch


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
    return replace(draws, values=values, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A summary of a technique for JSON, and its draws for comparisons with other techniques.

    out_of_fold : draws at the cross-fitted operating point, which selection uses. The others are of test.
    """

    summary: dict[str, Any]
    raw: Draws
    corrected: Draws
    operating_point: Draws
    out_of_fold: Draws


def evaluate(scores: Mapping[int, SeedScores], protocol: Protocol) -> Evaluation:
    """Evaluate a technique from its logits by seed.

    `raw` numbers describe the messages and the posteriors as they are. `corrected` numbers put the posteriors on the
    production prior and weight the messages to it. Both assign each message to its most probable class. `operating_point`
    decides by the corrected posteriors at the operating point. Each is given for the out-of-fold messages, where what is
    applied to a fold is fitted on the others, and for test, where it is fitted on all out-of-fold messages.
    """
    adjusted, grid = adjust(list(scores.values()), protocol), prior_grid(protocol.class_shares(protocol.test))
    measured = measure(statistics_by_family(adjusted, grid, protocol), COMPARED, protocol)
    points, estimates = measured.points, measured.estimates
    held_out = out_of_fold_estimates(adjusted, protocol)
    summary = {
        "labels": list(protocol.names),
        "production_prior": protocol.named(protocol.production_prior),
        "fitted": adjusted.as_json(protocol),
        "seeds": seed_summaries(list(scores), adjusted, points, protocol),
        "out_of_fold": {
            "messages": dict(zip(protocol.names, protocol.out_of_fold.counts(len(protocol.names)), strict=True)),
            **held_out.estimates,
        },
        "pooled": {family: estimates[family] for family in (*COMPARED, "ensemble")},
        "post_hoc": {
            family.removeprefix("post_hoc."): estimate
            for family, estimate in estimates.items()
            if family.startswith("post_hoc.")
        },
        "prior_grid": {ratio: {family: estimates[f"{family}@{ratio}"] for family in ("raw", "corrected")} for ratio in grid},
        "curves": {**curves(adjusted.test[0], protocol), **operating_curves(adjusted, protocol)},
    }
    return Evaluation(
        summary=summary, out_of_fold=held_out.draws, **comparison_draws(adjusted, points, measured.draws, protocol)
    )


def operating_curves(adjusted: Adjusted, protocol: Protocol) -> dict[str, Any]:
    """The cost curve and the review curve of the label of the operating point, on the test scores of all trainings."""
    label, point = protocol.rule.label, adjusted.fit.operating_point
    log_posteriors = log_softmax(np.concatenate(adjusted.test), axis=1)
    classes, groups = (np.tile(column, len(adjusted.test)) for column in (protocol.test.classes, protocol.test.groups))
    weights, kind = protocol.production_weights(protocol.test), "budget" if point.review is None else point.review.kind
    resamples, confidence = min(protocol.resamples, CURVE_RESAMPLES), protocol.confidence
    log_odds, share = one_vs_rest(log_posteriors, label), float(protocol.production_prior[label])
    cost = cost_curve(log_odds, classes == label, groups, share, resamples=resamples, confidence=confidence)
    review = review_curve(
        np.exp(log_posteriors),
        classes,
        point.costs,
        label,
        weights,
        groups,
        kind=kind,
        resamples=resamples,
        confidence=confidence,
    )
    name = protocol.names[label]
    return {"cost": {"label": name, **cost}, "review": {"label": name, "kind": kind, **review}}


def seed_summaries(
    seeds: Sequence[int], adjusted: Adjusted, points: Mapping[str, Points], protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """What was declared for and measured on test for each seed, for JSON."""
    return {
        str(seed): {
            "declared_prior": None if scores.declared_prior is None else protocol.named(scores.declared_prior),
            "confusion": {
                "raw": confusion(scores.test, protocol),
                "corrected": confusion(corrected, protocol),
                "operating_point": confusion(adjusted.fit.preferences(corrected), protocol),
            },
            **{family: points[family][position] for family in COMPARED},
        }
        for position, (seed, scores, corrected) in enumerate(zip(seeds, adjusted.scores, adjusted.test, strict=True))
    }


def comparison_draws(
    adjusted: Adjusted,
    points: Mapping[str, Points],
    draws: Mapping[str, Resampled],
    protocol: Protocol,
) -> dict[str, Draws]:
    """Draws on test by family: raw, corrected and operating_point."""
    train = {
        "raw": [seed.train for seed in adjusted.scores],
        "corrected": [adjusted.fit.corrected(seed.train, protocol) for seed in adjusted.scores],
    }
    preferences = {
        "raw": [seed.test for seed in adjusted.scores],
        "corrected": adjusted.test,
        "operating_point": [adjusted.fit.preferences(logits) for logits in adjusted.test],
    }
    by_family = {family: draws_of(draws[family], points[family], scores, protocol) for family, scores in preferences.items()}
    for family, logits_by_seed in train.items():
        recall = [
            training_recall(logits, seed.train_classes, protocol.names)
            for logits, seed in zip(logits_by_seed, adjusted.scores, strict=True)
        ]
        by_family[family] = with_recall_gap(by_family[family], recall, protocol.names)
    return by_family
