"""Models that were trained under different settings: what they decide on one test set, raw and corrected, and folds as one set.

The intervals of pooled folds take the trained models as given, beyond the variation over seeds and repeats: the variance of
cross-validation has no unbiased estimator (Bengio and Grandvalet 2004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.intervals import intervals, pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.protocol import Protocol

FAMILIES = ("raw", "corrected")


@dataclass(frozen=True, kw_only=True)
class PooledDecisions:
    """A technique's metrics (value, low, high) by family, and the draws by family from which it is compared."""

    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    draws: Mapping[str, Draws]


def pooled_decisions(raw: Sequence[np.ndarray], corrected: Sequence[np.ndarray], protocol: Protocol) -> PooledDecisions:
    """Metrics of decisions on the protocol's test set from logits (n, K), one a training, raw and on the production prior.

    Raw numbers describe the test set as it is, corrected ones weigh it to the production prior.
    """
    weights = {"raw": np.ones(len(protocol.names)), "corrected": protocol.production_weights(protocol.test)}
    logits = dict(zip(FAMILIES, (raw, corrected), strict=True))
    families = {name: [Decisions(protocol.test_scores(each, weights[name])) for each in logits[name]] for name in FAMILIES}
    everything = np.ones((1, int(protocol.test.groups.max()) + 1))
    points = {
        name: [{key: float(value[0]) for key, value in each(everything).items()} for each in of_trainings]
        for name, of_trainings in families.items()
    }
    draws = pooled_draws(families, protocol)
    found = {name: intervals(families[name], points[name], draws[name], protocol) for name in FAMILIES}
    return PooledDecisions(
        metrics=found,
        draws={
            name: Draws(
                values=draws[name],
                seeds={key: np.array([point[key] for point in points[name]]) for key in points[name][0]},
                correct=np.stack([each.argmax(axis=1) == protocol.test.classes for each in logits[name]]),
            )
            for name in FAMILIES
        },
    )
