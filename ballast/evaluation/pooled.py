"""Decisions of models that were trained under different settings, on one test set or on pooled folds, raw and corrected.

Intervals of pooled folds treat the trained models as given, apart from the variation over seeds and repeats: the variance of
cross-validation has no unbiased estimator (Bengio and Grandvalet 2004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.intervals import draws_of, intervals, point_values, pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.protocol import Protocol

FAMILIES = ("raw", "corrected")


@dataclass(frozen=True, kw_only=True)
class PooledDecisions:
    """A technique's metrics (value, low, high) and its draws for comparisons, by family."""

    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    draws: Mapping[str, Draws]


def pooled_decisions(raw: Sequence[np.ndarray], corrected: Sequence[np.ndarray], protocol: Protocol) -> PooledDecisions:
    """Metrics of decisions on the protocol's test set from raw and corrected logits (n, K), one array per training.

    Raw numbers describe the test set as it is; corrected ones weight it to the production prior.
    """
    weights = {"raw": np.ones(len(protocol.names)), "corrected": protocol.production_weights(protocol.test)}
    logits = dict(zip(FAMILIES, (raw, corrected), strict=True))
    families = {
        family: [Decisions(protocol.test_scores(by_training, weights[family])) for by_training in logits[family]]
        for family in FAMILIES
    }
    points = {family: point_values(statistics, protocol.test) for family, statistics in families.items()}
    draws = pooled_draws(families, protocol.test, protocol)
    return PooledDecisions(
        metrics={family: intervals(families[family], points[family], draws[family], protocol) for family in FAMILIES},
        draws={family: draws_of(draws[family], points[family], logits[family], protocol) for family in FAMILIES},
    )
