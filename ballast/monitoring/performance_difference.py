"""Estimate how differently two versions of a model decide on a window without labels, and which one decides better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from ballast.evaluation.bootstrap import wilson_interval
from ballast.monitoring.estimated_performance import (
    Estimated,
    HeldOut,
    PerformanceProtocol,
    confusion_rates,
    floor_names,
    performance,
    prior_and_rates,
    with_intervals,
)
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.quantification import design_effect


def share_that_differs(first: np.ndarray, second: np.ndarray, groups: np.ndarray, confidence: float) -> Estimated:
    """The share of n > 0 messages with different decisions (n,) and (n,), and Wilson's interval.

    Near duplicates, which share a group (n,), count as few independent messages.

    Examples
    --------
    >>> differs = share_that_differs(np.array([0] * 8 + [1, 1]), np.zeros(10, dtype=int), np.arange(10), confidence=0.95)
    >>> round(differs.value, 2), round(differs.low, 2), round(differs.high, 2)
    (0.2, 0.06, 0.51)
    """
    differs = (first != second).astype(np.float64)
    trials = min(len(differs) / design_effect(differs, groups), len(np.unique(groups)))
    share = float(differs.mean())
    low, high = wilson_interval(share, trials, confidence)
    return Estimated(value=share, low=low, high=high)


def compared_metrics(
    prior: np.ndarray, rates: np.ndarray, names: Sequence[str], costs: np.ndarray | None
) -> Mapping[str, np.ndarray]:
    """Precision, recall and F1 of each class, macro F1 and the cost, each (b,); see `performance`."""
    values = performance(prior, rates, names, costs)
    compared = {name: values[name] for name in [*floor_names(names), *([] if costs is None else ["cost"])]}
    return {**compared, "macro_f1": np.mean([values[f"{name}.f1"] for name in names], axis=0)}


def estimate_difference(
    deployed: HeldOut, other: HeldOut, window: ScoredMessages, prior: np.ndarray, protocol: PerformanceProtocol
) -> dict[str, Estimated]:
    """Estimate the metrics of another version's decisions minus those of the deployed version's, by name.

    Valid under label shift only, as `estimate_performance`.

    Parameters
    ----------
    deployed, other : labelled messages that the version has not seen, with its own posteriors and decisions.
    window : n > 0 messages with the posteriors of the deployed version.
    prior : (K,) estimated for the window, as for `estimate_performance`.

    Notes
    -----
    A window has one class prior, so both versions are judged on the same one. In a draw of the joint bootstrap, a held-out
    group has the same weight for both versions. Therefore, errors that both versions make cancel out, and the interval is
    narrower than that of two separate estimates. Groups that only one version has contribute an independent error.

    Examples
    --------
    >>> classes = np.repeat([0, 1], [200, 100])
    >>> good, bad = classes.copy(), classes.copy()
    >>> bad[200:240] = 0
    >>> versions = [HeldOut(posteriors=np.eye(2)[d], decisions=d, classes=classes, groups=np.arange(300)) for d in (good, bad)]
    >>> window = ScoredMessages(posteriors=np.eye(2)[classes], groups=np.arange(300), descriptors={})
    >>> protocol = PerformanceProtocol(names=["ham", "spam"], costs=None, resamples=500, confidence=0.95, seed=0)
    >>> recall = estimate_difference(*versions, window, np.array([2 / 3, 1 / 3]), protocol)["spam.recall"]
    >>> round(recall.value, 2), round(recall.low, 1), round(recall.high, 1)
    (-0.4, -0.5, -0.3)
    """

    def differences(shares: np.ndarray, of_deployed: np.ndarray, of_other: np.ndarray) -> dict[str, np.ndarray]:
        before, after = (compared_metrics(shares, rates, protocol.names, protocol.costs) for rates in (of_deployed, of_other))
        return {name: after[name] - before[name] for name in before}

    versions = [deployed, other]
    values = differences(
        prior[None], *(confusion_rates(version.classes, version.decisions, len(prior))[None] for version in versions)
    )
    # One thread, as in `estimate_performance`.
    with threadpool_limits(1, user_api="blas"):
        blocks = [
            differences(shares, *rates)
            for shares, rates in prior_and_rates(versions, window, protocol.resamples, protocol.seed)
        ]
    return with_intervals(values, blocks, protocol.confidence)
