"""The estimated performance of the deployed model on a window without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ballast.models.deployed import manifest_costs
from ballast.monitoring.decision import WindowDecision
from ballast.monitoring.estimated_performance import Estimated, HeldOut, PerformanceProtocol, estimate_performance, on_prior
from ballast.monitoring.floors import BelowFloor, check_floors
from ballast.monitoring.label_shift import ScoredMessages
from stages.production.deployed import Version
from stages.production.reference import Reference
from stages.store.params import Params
from stages.store.project import PROJECT


def protocol_of(version: Version, params: Params) -> PerformanceProtocol:
    """What the watch estimates of a version; raises UserError for costs of other labels."""
    costs = params.operating_point.costs
    where = f"{PROJECT.params}: operating_point.costs"
    return PerformanceProtocol(
        names=version.labels,
        costs=None if costs is None else manifest_costs(costs, version.labels, where),
        resamples=params.evaluate.resamples,
        confidence=params.production.watch.confidence,
        seed=params.evaluate.seed,
    )


def floors_of(version: Version, params: Params) -> dict[str, float]:
    """The floors of params.yaml; raises UserError for one of another class or metric."""
    floors = params.production.watch.floor or {}
    check_floors(f"{PROJECT.params}: production.watch.floor", floors, version.labels)
    return floors


def held_out_of(version: Version, reference: Reference) -> HeldOut:
    """The held-out messages of a version with its decisions."""
    messages = reference.messages
    return HeldOut(
        posteriors=messages.posteriors,
        decisions=version.decisions(messages.posteriors),
        classes=reference.classes,
        groups=messages.groups,
    )


def performance_of(
    version: Version,
    reference: Reference,
    window: ScoredMessages,
    verdict: WindowDecision,
    protocol: PerformanceProtocol,
) -> dict[str, Estimated] | None:
    """The estimated metrics of a version's decisions on a window; None if they are withheld."""
    if verdict.withheld is not None or verdict.estimate is None:
        return None
    return estimate_performance(*on_prior(held_out_of(version, reference), window, verdict.estimate.prior), protocol)


def performance_as_json(
    estimated: Mapping[str, Estimated] | None, withheld: str | None, below: Sequence[BelowFloor]
) -> dict[str, Any]:
    """What the file of a window holds: `metrics` by name, or why they are `withheld`; the floors of the metrics `below_floor`.

    Examples
    --------
    >>> performance_as_json({"spam.recall": Estimated(value=0.9, low=0.8, high=0.95)}, None, [])
    {'below_floor': {}, 'metrics': {'spam.recall': {'value': 0.9, 'low': 0.8, 'high': 0.95}}, 'withheld': None}
    """
    metrics = None if estimated is None else {name: asdict(metric) for name, metric in estimated.items()}
    return {"below_floor": {item.metric: item.floor for item in below}, "metrics": metrics, "withheld": withheld}
