"""Review band: the messages that people decide, because no automatic decision is clear enough.

With a cost of review, people decide a message if its least expected cost exceeds that cost (Chow, On Optimum Recognition Error
and Reject Tradeoff, 1970). With a budget, they decide the messages with the smallest margin between the two least expected
costs. For two classes, both are a band of posteriors around the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ballast.evaluation.costs import expected_costs

# A budget is a number of messages per this many messages.
REVIEW_UNIT = 10_000
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Review:
    """Which messages people decide: kind and limit.

    kind : budget or cost.
    limit : messages that people can read per REVIEW_UNIT messages, or the cost of a review in the unit of the cost matrix.
    """

    kind: Literal["budget", "cost"]
    limit: float


@dataclass(frozen=True, kw_only=True)
class ReviewBand:
    """A fitted review: messages with a margin below `cut` (budget), or a least expected cost above `cut` (cost).

    share : value, low and high of the share of messages in the band on the held-out messages, at the production prior; None if
        it was not measured.
    """

    kind: Literal["budget", "cost"]
    limit: float
    cut: float
    share: Mapping[str, float] | None = None


def review_order(posteriors: np.ndarray, costs: np.ndarray, kind: str) -> np.ndarray:
    """Value (n,) that is lowest for the messages to review first: the margin of the costs, or minus the least expected cost.

    Examples
    --------
    >>> posteriors, costs = np.array([[0.9, 0.1], [0.55, 0.45]]), 1 - np.eye(2)
    >>> review_order(posteriors, costs, "budget").round(2), review_order(posteriors, costs, "cost").round(2)
    (array([0.8, 0.1]), array([-0.1 , -0.45]))
    """
    smallest = np.partition(expected_costs(posteriors, costs), 1, axis=1)[:, :2]
    return smallest[:, 1] - smallest[:, 0] if kind == "budget" else -smallest[:, 0]


def review_mask(posteriors: np.ndarray, costs: np.ndarray, band: ReviewBand | None) -> np.ndarray:
    """Whether people decide each message (n,): posteriors (n, K) on the production prior, costs (K, K).

    Examples
    --------
    >>> band = ReviewBand(kind="cost", limit=0.3, cut=0.3)
    >>> review_mask(np.array([[0.9, 0.1], [0.55, 0.45]]), 1 - np.eye(2), band)
    array([False,  True])
    """
    if band is None:
        return np.zeros(len(posteriors), dtype=bool)
    order = review_order(posteriors, costs, band.kind)
    return order < (band.cut if band.kind == "budget" else -band.cut)


def fit_review(review: Review, posteriors: np.ndarray, costs: np.ndarray, weights: np.ndarray) -> ReviewBand:
    """The review band on held-out messages: the widest one within the budget, or the one that the cost of a review implies.

    posteriors : (n, K) on the production prior; costs : (K, K).
    weights : (n,) of the messages, in proportion to their frequency in production.

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1], [0.55, 0.45], [0.3, 0.7], [0.99, 0.01]])
    >>> band = fit_review(Review(kind="budget", limit=2500), posteriors, 1 - np.eye(2), np.ones(4))
    >>> round(band.cut, 2), review_mask(posteriors, 1 - np.eye(2), band)
    (0.25, array([False,  True, False, False]))
    """
    if review.kind == "cost":
        return ReviewBand(kind="cost", limit=review.limit, cut=review.limit)
    order = review_order(posteriors, costs, "budget")
    rows = np.argsort(order, kind="stable")
    rising = order[rows]
    share = np.cumsum(weights[rows]) / weights.sum()
    # Messages with equal margins are reviewed together.
    ends = np.flatnonzero(np.append(np.diff(rising) > ROUNDING, True))
    within = ends[share[ends] <= review.limit / REVIEW_UNIT + ROUNDING]
    if not len(within):
        return ReviewBand(kind="budget", limit=review.limit, cut=0.0)
    last = within[-1]
    cut = rising[last] + 1.0 if last + 1 == len(rising) else (rising[last] + rising[last + 1]) / 2
    return ReviewBand(kind="budget", limit=review.limit, cut=float(cut))


def band_thresholds(band: ReviewBand, costs: np.ndarray, label: int) -> tuple[float, float] | None:
    """The two thresholds on the posterior of one of two classes between which people decide; None if the band is empty.

    costs : (2, 2), with mistakes that cost more than correct decisions.

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [4.0, 0.0]])
    >>> low, high = band_thresholds(ReviewBand(kind="cost", limit=0.4, cut=0.4), costs, label=1)
    >>> round(low, 3), round(high, 3)
    (0.1, 0.6)
    """
    other = 1 - label
    false_alarm, miss = costs[other, label] - costs[other, other], costs[label, other] - costs[label, label]
    if false_alarm <= 0 or miss <= 0:
        return None
    if band.kind == "budget":
        centre, half = false_alarm / (false_alarm + miss), band.cut / (false_alarm + miss)
        low, high = centre - half, centre + half
    else:
        # The cost of assigning the other class rises with the posterior, that of assigning the label falls.
        rise, fall = costs[label, other] - costs[other, other], costs[other, label] - costs[label, label]
        if rise <= 0 or fall <= 0:
            return None
        low, high = (band.cut - costs[other, other]) / rise, (costs[other, label] - band.cut) / fall
    return (float(max(0, low)), float(min(1, high))) if low < high else None


def review_as_json(band: ReviewBand | None, costs: np.ndarray, label: int) -> dict[str, Any] | None:
    """A review band for JSON: kind, limit, cut, share, and the two thresholds on the label's posterior (two classes).

    Examples
    --------
    >>> band = ReviewBand(kind="cost", limit=0.4, cut=0.4)
    >>> review_as_json(band, 1 - np.eye(2), label=1)["thresholds"]
    {'low': 0.4, 'high': 0.6}
    """
    if band is None:
        return None
    ends = band_thresholds(band, costs, label) if len(costs) == 2 else None
    return {
        "kind": band.kind,
        "limit": band.limit,
        "cut": band.cut,
        "share": None if band.share is None else dict(band.share),
        "thresholds": None if ends is None else {"low": ends[0], "high": ends[1]},
    }


def review_from_json(stored: Mapping[str, Any] | None) -> ReviewBand | None:
    """The review band that `review_as_json` wrote.

    Raises KeyError, TypeError or ValueError if it is malformed.

    Examples
    --------
    >>> review_from_json({"kind": "cost", "limit": 0.4, "cut": 0.4, "share": None, "thresholds": None}).cut
    0.4
    """
    if stored is None:
        return None
    if stored["kind"] not in ("budget", "cost"):
        raise ValueError(f"review.kind is {stored['kind']!r}; expected 'budget' or 'cost'")
    return ReviewBand(kind=stored["kind"], limit=float(stored["limit"]), cut=float(stored["cut"]), share=stored.get("share"))
