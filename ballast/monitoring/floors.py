"""Floors of the estimated performance: which metrics of a window are below theirs, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ballast.exceptions import UserError, suggestion
from ballast.monitoring.decision import Feedback, Policy, WindowDecision, missing_labels
from ballast.monitoring.estimated_performance import Estimated, floor_names


@dataclass(frozen=True, kw_only=True)
class BelowFloor:
    """A metric whose whole interval lies below its floor.

    by_labels : whether the estimate is from labels of the labelling queue.
    """

    metric: str
    floor: float
    estimated: Estimated
    by_labels: bool = False


def check_floors(name: str, floors: Mapping[str, float], labels: Sequence[str]) -> None:
    """Raise UserError for a floor of an unknown class or metric. `name` is the argument in the message.

    Examples
    --------
    >>> check_floors("floor", {"spam.precison": 0.95}, ["ham", "spam"])
    Traceback (most recent call last):
    ballast.exceptions.UserError: floor: no metric 'spam.precison' can have a floor: did you mean 'spam.precision'? ...
    """
    valid = floor_names(labels)
    for metric in floors:
        if metric not in valid:
            raise UserError(f"{name}: no metric {metric!r} can have a floor: {suggestion(metric, valid)}")


def metrics_below(
    estimated: Mapping[str, Estimated], floors: Mapping[str, float], by_labels: Mapping[str, Estimated] | None = None
) -> list[BelowFloor]:
    """The metrics whose whole interval lies below their floors.

    An estimate below the floor is no evidence if the interval reaches the floor.

    estimated : without labels.
    by_labels : estimates that replace those without labels.

    Examples
    --------
    >>> estimated = {"spam.precision": Estimated(value=0.9, low=0.85, high=0.94)}
    >>> [below.metric for below in metrics_below(estimated, {"spam.precision": 0.95})]
    ['spam.precision']
    >>> metrics_below(estimated, {"spam.precision": 0.93})
    []
    """
    labelled = by_labels or {}
    best = {**estimated, **labelled}
    return [
        BelowFloor(metric=metric, floor=floor, estimated=best[metric], by_labels=metric in labelled)
        for metric, floor in floors.items()
        if metric in best and best[metric].high < floor
    ]


def with_floors(
    verdict: WindowDecision, below: Sequence[BelowFloor], feedback: Feedback, policy: Policy, labels: list[str]
) -> WindowDecision:
    """The decision on a window and its reasons, given the metrics that are below their floors.

    A decision to correct the prior or to retrain stays. A steady window is retrained on if there are enough new labels.
    """
    if not below:
        return verdict
    reasons = [
        f"{f'{item.metric} by labels of the queue' if item.by_labels else f'the estimated {item.metric}'} is"
        f" {item.estimated.value:.3f} ({item.estimated.low:.3f} to {item.estimated.high:.3f}),"
        f" below its floor of {item.floor:g}"
        for item in below
    ]
    if verdict.decision != "steady":
        return replace(verdict, reasons=[*verdict.reasons, *reasons])
    lacking = missing_labels(feedback, policy, labels)
    return replace(verdict, decision="below_floor" if lacking else "retrain", reasons=[*reasons, *lacking])
