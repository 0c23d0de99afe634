"""A challenger against the champion on the same messages, which neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import bootstrap_draws, percentile_interval
from ballast.evaluation.metrics import Decisions, higher_is_better
from ballast.evaluation.operating_point import expected_costs
from ballast.evaluation.statistic import ClassSupport, LabelledScores


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Posteriors (n, K) of the messages, and the costs (K, K) of the operating point by which they are decided."""

    posteriors: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The metric of both, and challenger minus champion with its paired interval."""

    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    not_worse: bool


def challenge(
    champion: Contender,
    challenger: Contender,
    classes: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    *,
    prior: np.ndarray,
    metric: str,
    margin: float,
    resamples: int,
    confidence: float,
    seed: int,
) -> Outcome:
    """Compare the decisions of two models, weighted to a production prior (K,).

    Parameters
    ----------
    classes, groups : (n,) class indices, every class among them, and near-duplicate groups numbered from 0.
    metric : of decisions, such as macro_f1 or spam.recall.
    margin : the challenger is not worse when the interval says that it loses less than this.

    Paired bootstrap over groups: both are measured on the same resamples.
    """
    weights = prior / (np.bincount(classes, minlength=len(names)) / len(classes))
    members = ClassSupport(classes, groups, len(names))

    def decisions(contender: Contender) -> Decisions:
        preferences = -expected_costs(contender.posteriors, contender.costs)
        return Decisions(LabelledScores(names, classes, preferences, groups, weights), members)

    of = {"champion": decisions(champion), "challenger": decisions(challenger)}
    count = int(groups.max()) + 1
    found = {name: float(each(np.ones((1, count)))[metric][0]) for name, each in of.items()}
    draws = bootstrap_draws(lambda counts: {name: each(counts)[metric] for name, each in of.items()}, count, resamples, seed)
    difference = found["challenger"] - found["champion"]
    low, high = percentile_interval(draws["challenger"] - draws["champion"], confidence)
    low, high = min(low, difference), max(high, difference)
    worst = low if higher_is_better(metric) else -high
    return Outcome(**found, difference=difference, low=low, high=high, not_worse=worst >= -margin)
