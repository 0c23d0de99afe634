"""Draws of a study's rows with the variation between trainings, and the metrics that only claims use.

A row is a technique in a variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit, logit, ndtri

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claims import PASSES
from ballast.evaluation.comparison import REFERENCE
from ballast.evaluation.fold_variation import fold_values, with_fold_variation, with_training_error
from ballast.evaluation.pooled import PooledDecisions
from ballast.evaluation.priors import fit_prior
from ballast.evaluation.seed_variation import with_seed_variation
from stages.store.claims import with_prior
from stages.study.pooling import Tested

Entry = tuple[str, str]
Decisions = Mapping[str, Mapping[str, PooledDecisions]]


def name_of(entry: Entry) -> str:
    """A row's name in comparisons."""
    return " / ".join(entry)


def claim_names(tested: Mapping[str, Tested]) -> dict[Entry, str]:
    """The names of the rows in claims: the technique, the variant of a single technique, or variant/technique."""
    return {
        (variant, name): name if len(tested) == 1 else variant if len(test_set.training) == 1 else f"{variant}/{name}"
        for variant, test_set in tested.items()
        for name in test_set.training
    }


def varied_draws(own: Decisions, tested: Mapping[str, Tested], family: str) -> dict[Entry, Draws]:
    """The draws of each row, with the variation between its seeds, or between the folds of a cross-validation."""
    entries = {name_of((variant, name)): (variant, name) for variant, by_name in own.items() for name in by_name}
    draws = {row: own[variant][name].draws[family] for row, (variant, name) in entries.items()}
    if not all(test_set.folds for test_set in tested.values()):
        return {entries[row]: varied for row, varied in with_seed_variation(draws).items()}
    by_fold = {}
    for row, (variant, name) in entries.items():
        test_set = tested[variant]
        protocol = test_set.protocol
        weights = np.ones(len(protocol.names)) if family == "raw" else protocol.production_weights(protocol.test)
        by_fold[row] = fold_values(test_set.logits[family][name], test_set.folds, weights, protocol)
    return {entries[row]: varied for row, varied in with_fold_variation(draws, by_fold).items()}


def fitted_share(logits: Sequence[np.ndarray], test_set: Tested, label: int) -> dict[str, float]:
    """The share of a class in the prior that fits the test logits (n, K) of all trainings: value, low, high."""
    protocol = test_set.protocol
    test, confidence = protocol.test, protocol.confidence
    copies = len(logits)
    fitted = fit_prior(
        np.concatenate(logits),
        np.tile(test.classes, copies),
        np.tile(test.groups, copies),
        confidence=confidence,
        copies=copies,
    )
    value, low, high = (float(logit(ends[label])) for ends in (fitted.prior, fitted.low, fitted.high))
    quantile = ndtri((1 + confidence) / 2)
    deviation = (high - low) / (2 * quantile)
    if test_set.folds:
        fold_of, scores = test_set.folds[0], logits[0]
        by_fold = [
            fit_prior(scores[inside], test.classes[inside], test.groups[inside], confidence=confidence).prior[label]
            for inside in (fold_of == fold for fold in range(int(fold_of.max()) + 1))
        ]
        deviation = with_training_error(value, deviation, logit(np.array(by_fold)))
    ends = {"value": value, "low": value - quantile * deviation, "high": value + quantile * deviation}
    return {end: float(expit(log_odds)) for end, log_odds in ends.items()}


def with_claim_metrics(draws: Draws, entry: Entry, test_set: Tested, family: str) -> Draws:
    """The draws with the effective prior of the rarest class and, beside a baseline, with the messages of an epoch."""
    name, protocol = entry[1], test_set.protocol
    rarest = int(protocol.production_prior.argmin())
    share = fitted_share(test_set.logits[family][name], test_set, rarest)
    measured = with_prior(draws, share, float(protocol.production_prior[rarest]), protocol.confidence)
    if REFERENCE not in test_set.training:
        return measured
    passes = sum(test_set.training[name].values()) / sum(test_set.training[REFERENCE].values())
    resamples = len(next(iter(draws.values.values())))
    more = {PASSES: np.full(resamples, passes)}
    return replace(
        measured,
        values={**measured.values, **more},
        seeds={**measured.seeds, PASSES: np.full(draws.n_seeds, passes)},
        sampling=None if measured.sampling is None else {**measured.sampling, **more},
    )
