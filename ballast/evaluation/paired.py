"""Differences between two ways to decide by the same trainings, on the same test messages.

The trainings vary, and single messages do so too: a seed decides a message in one way, another seed in the other way. The
bootstrap over messages contains the second part, so the variation between seeds adds the first part only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ballast.evaluation.bootstrap import percentile_interval
from ballast.evaluation.comparison import bootstrap_p_value, equivalence_p_value, margin_for, verdict
from ballast.evaluation.intervals import over_seeds, point_values, pooled_draws, with_training_noise
from ballast.evaluation.protocol import Protocol
from ballast.evaluation.statistic import Statistic


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference, `value`, its draws (resamples,) over messages and trainings, and the level `before` the change."""

    before: float
    value: float
    draws: np.ndarray

    def entry(self, confidence: float, margin: float) -> dict[str, Any]:
        """The difference with interval, margin and verdict, for a metric that is higher the better the decisions are.

        Examples
        --------
        >>> difference = Difference(before=0.8, value=0.05, draws=np.linspace(0.03, 0.07, 101))
        >>> entry = difference.entry(confidence=0.95, margin=0.02)
        >>> round(entry["low"], 3), round(entry["high"], 3), entry["verdict"]
        (0.031, 0.069, 'better')
        """
        low, high = percentile_interval(self.draws, confidence)
        limit, p = margin_for(self.before, margin), bootstrap_p_value(self.draws)
        equivalent = equivalence_p_value(self.draws, limit) if max(abs(low), abs(high)) <= limit else 1.0
        return {
            "difference": self.value,
            "low": min(low, self.value),
            "high": max(high, self.value),
            "p": p,
            "margin": limit,
            "verdict": verdict(self.value, p, equivalent, confidence, higher_is_better=True),
        }


def differences_on_test(
    before: Sequence[Statistic], after: Sequence[Statistic], means: Mapping[str, Sequence[str]], protocol: Protocol
) -> dict[str, Difference]:
    """Differences from statistics of each training, before and after a change, on the same resamples of the test groups.

    With one statistic after the change, such as that of an ensemble, the trainings count as given.

    means : name -> the metrics whose mean it is, such as the F1 of some classes.

    Examples
    --------
    >>> from ballast.evaluation.cross_fitting import out_of_fold
    >>> from ballast.evaluation.metrics import Decisions
    >>> from ballast.evaluation.protocol import Labelled
    >>> labels, rows = np.array([0, 0, 1, 1]), np.arange(4)
    >>> protocol = Protocol(
    ...     names=["ham", "spam"], out_of_fold=out_of_fold([rows], labels, rows), test=Labelled(classes=labels, groups=rows),
    ...     production_prior=np.array([0.5, 0.5]), resamples=100, confidence=0.95, seed=0,
    ... )
    >>> sides = [[Decisions(protocol.test_scores(np.eye(2)[predicted], np.ones(2)))] for predicted in ([0, 1, 1, 1], labels)]
    >>> found = differences_on_test(*sides, {"accuracy": ["accuracy"]}, protocol)["accuracy"]
    >>> found.before, found.value
    (0.75, 0.25)
    """
    sides = {f"before {number}": [statistic] for number, statistic in enumerate(before)}
    sides |= {f"after {number}": [statistic] for number, statistic in enumerate(after)}
    drawn = pooled_draws(sides, protocol.test, protocol)
    points = [point_values(side, protocol.test) for side in (before, after)]
    pairs = [(number, min(number, len(after) - 1)) for number in range(len(before))]
    found = {}
    for name, metrics in means.items():
        draws, chance = over_seeds(
            [
                np.mean(
                    [drawn[f"after {other}"].values[key] - drawn[f"before {number}"].values[key] for key in metrics], axis=0
                )
                for number, other in pairs
            ]
        )
        levels = [np.array([np.mean([point[key] for key in metrics]) for point in of_side]) for of_side in points]
        if len(after) == len(before):
            draws = with_training_noise(draws, levels[1] - levels[0], chance, protocol)
        level = float(levels[0].mean())
        found[name] = Difference(before=level, value=float(levels[1].mean() - levels[0].mean()), draws=draws)
    return found
