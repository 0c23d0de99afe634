"""Compare a challenger with the champion on the same messages, which neither was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import bootstrap_draws, percentile_interval
from ballast.evaluation.metrics import Decisions, higher_is_better
from ballast.evaluation.operating_point import expected_costs
from ballast.evaluation.statistic import ClassSupport, LabelledScores


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Posteriors (n, K) of the messages, and the costs (K, K) of the model's operating point."""

    posteriors: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ChallengeProtocol:
    """How two models are compared.

    names : K label names.
    prior : (K,) production prior that the messages are weighted to.
    metric : of decisions, such as macro_f1 or spam.recall.
    margin : the challenger is not worse if its loss is smaller than this with the given confidence.
    resamples, confidence, seed : of the bootstrap.
    """

    names: list[str]
    prior: np.ndarray
    metric: str
    margin: float
    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The metric of both models, and challenger minus champion with its paired interval."""

    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    not_worse: bool


def challenge(
    champion: Contender, challenger: Contender, classes: np.ndarray, groups: np.ndarray, protocol: ChallengeProtocol
) -> Outcome:
    """Compare the decisions of two models by a paired bootstrap over groups.

    classes : (n,) class indices; every class occurs.
    groups : (n,) near-duplicate groups, numbered from 0.
    """
    classes_count, metric = len(protocol.names), protocol.metric
    weights = protocol.prior / (np.bincount(classes, minlength=classes_count) / len(classes))
    support = ClassSupport(classes, groups, classes_count)

    def decisions(contender: Contender) -> Decisions:
        preferences = -expected_costs(contender.posteriors, contender.costs)
        return Decisions(LabelledScores(protocol.names, classes, preferences, groups, weights), support)

    statistics = {"champion": decisions(champion), "challenger": decisions(challenger)}
    group_count = int(groups.max()) + 1
    values = {name: float(statistic(np.ones((1, group_count)))[metric][0]) for name, statistic in statistics.items()}
    draws = bootstrap_draws(
        lambda counts: {name: statistic(counts)[metric] for name, statistic in statistics.items()},
        group_count,
        protocol.resamples,
        protocol.seed,
    )
    difference = values["challenger"] - values["champion"]
    low, high = percentile_interval(draws["challenger"] - draws["champion"], protocol.confidence)
    low, high = min(low, difference), max(high, difference)
    worst = low if higher_is_better(metric) else -high
    return Outcome(**values, difference=difference, low=low, high=high, not_worse=worst >= -protocol.margin)
