"""Thresholds of a ranking: what each of them assigns, and the offsets of logits that maximise macro F1.

Arrays may have a leading axis of resamples: weights (b, n) give hits and assigned (b, c).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.evaluation.statistic import safe_ratio

ROUNDING = 1e-9
# Means of F1 that agree to so many decimals are equal.
DECIMALS = 12


def log_margins(log_posteriors: np.ndarray, label: int) -> np.ndarray:
    """Margin (n,) of a label: its log posterior minus the largest other one; log_posteriors (n, K).

    Examples
    --------
    >>> log_margins(np.log([[0.5, 0.3, 0.2]]), label=0).round(3)
    array([0.511])
    """
    others = np.delete(log_posteriors, label, axis=1)
    return log_posteriors[:, label] - others.max(axis=1)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """All thresholds of a ranking that assign at least one message to the class, from the fewest messages to all.

    at : (c,) threshold on the margin, halfway between two neighbours.
    hits, assigned : (..., c) weight of the messages assigned correctly, and of all assigned messages.
    members, others : (...,) weight of the messages of the class, and of the others.
    """

    at: np.ndarray
    hits: np.ndarray
    assigned: np.ndarray
    members: np.ndarray
    others: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """Precision (..., c)."""
        return safe_ratio(self.hits, self.assigned)

    @property
    def recall(self) -> np.ndarray:
        """Recall (..., c)."""
        return safe_ratio(self.hits, self.members[..., None])

    @property
    def false_positive_rate(self) -> np.ndarray:
        """Share (..., c) of the other messages that is assigned to the class."""
        return safe_ratio(self.assigned - self.hits, self.others[..., None])

    def f_beta(self, beta: float = 1.0) -> np.ndarray:
        """F-beta (..., c): recall counts beta times as much as precision (van Rijsbergen 1979)."""
        return safe_ratio((1 + beta**2) * self.hits, self.assigned + beta**2 * self.members[..., None])

    def macro_f1(self) -> np.ndarray:
        """Mean (..., c) of the F1 of the class and of all other messages as one class."""
        others, total = self.others[..., None], (self.members + self.others)[..., None]
        rejected = 2 * (others - self.assigned + self.hits)
        return (self.f_beta() + safe_ratio(rejected, total - self.assigned + others)) / 2


def all_thresholds(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> Thresholds:
    """All thresholds on scores (n,), with positive (n,) booleans and weights (n,) or (b, n) of the messages.

    Examples
    --------
    >>> scores, positive = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    >>> thresholds = all_thresholds(scores, positive, np.ones(3))
    >>> thresholds.at, thresholds.precision.round(2)
    (array([2.5, 1.5, 0. ]), array([1.  , 0.5 , 0.67]))
    """
    order = np.argsort(-scores, kind="stable")
    falling, ordered = scores[order], weights[..., order]
    # Scores that are equal up to rounding are assigned together.
    ends = np.flatnonzero(np.append(falling[:-1] - falling[1:] > ROUNDING, True))
    below = np.append(falling[ends[:-1] + 1], falling[-1] - 2)
    return Thresholds(
        at=(falling[ends] + below) / 2,
        hits=np.cumsum(ordered * positive[order], axis=-1)[..., ends],
        assigned=np.cumsum(ordered, axis=-1)[..., ends],
        members=weights[..., positive].sum(axis=-1),
        others=weights[..., ~positive].sum(axis=-1),
    )


def rivals_f1(
    rival: np.ndarray, weights: np.ndarray, correct: np.ndarray, hits: np.ndarray, totals: np.ndarray, label: int
) -> np.ndarray:
    """Sum (n + 1,) of the F1 of all classes but `label`, after the first k of n messages have left their class.

    A message changes the F1 of its class only, so this takes O(n log n) for any number of classes.

    Parameters
    ----------
    rival, weights, correct : (n,) class that a message leaves, its weight, and whether it was assigned correctly, in the order
        of leaving.
    hits, totals : (K,) weight of the correct messages of each class before, and of its own messages plus those assigned to it.

    Examples
    --------
    >>> rivals_f1(np.array([0, 0]), np.ones(2), np.array([False, True]), np.array([1.0, 0.0]), np.array([3.0, 1.0]), 1).round(2)
    array([0.67, 1.  , 0.  ])
    """
    by_class = np.argsort(rival, kind="stable")
    own, moved = rival[by_class], weights[by_class]
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    lengths = np.diff(starts, append=len(own))
    left, left_hits = (
        sums - np.repeat(sums[starts] - values[starts], lengths)
        for values in (moved, moved * correct[by_class])
        for sums in (values.cumsum(),)
    )
    before = safe_ratio(2 * hits, totals)
    after = safe_ratio(2 * np.maximum(hits[own] - left_hits, 0), totals[own] - left)
    change = np.diff(after, prepend=0)
    change[starts] = after[starts] - before[own[starts]]
    in_order = np.empty(len(rival))
    in_order[by_class] = change
    return np.concatenate([[0], in_order.cumsum()]) + before.sum() - before[label]


def macro_f1_offsets(logits: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Offsets (K,) of logits (n, K) that maximise the macro F1 of their argmax for labels (n,).

    Coordinate ascent: each class in turn gets the best offset, with the others fixed. With two classes this is the exact
    optimum. class_weights (K,) are the weights of the messages of each class.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> offsets = macro_f1_offsets(logits, np.array([0, 0, 1, 1]), np.ones(2))
    >>> (logits + offsets).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    classes = logits.shape[1]
    offsets = np.zeros(classes)
    weights = class_weights[labels]
    support = np.bincount(labels, weights=weights, minlength=classes)
    for label in list(range(classes)) * sweeps if classes > 2 else [1]:
        shifted = logits + offsets
        others = np.delete(shifted, label, axis=1)
        rival = others.argmax(axis=1)
        rival += rival >= label
        needed = others.max(axis=1) - shifted[:, label]
        order = np.argsort(needed, kind="stable")
        hits, assigned = (np.bincount(rival, weights=weights * counted, minlength=classes) for counted in (labels == rival, 1))
        # What the class has, and correctly so, after the first k messages have moved to it.
        own = np.concatenate([[0], weights[order].cumsum()])
        own_hits = np.concatenate([[0], (weights * (labels == label))[order].cumsum()])
        rivals = rivals_f1(rival[order], weights[order], (labels == rival)[order], hits, assigned + support, label)
        macro = ((rivals + safe_ratio(2 * own_hits, own + support[label])) / classes).round(DECIMALS)
        ends = np.concatenate([needed[order], [np.inf]])
        # Offsets that are equal up to rounding move messages together, so only the last of them is a candidate.
        macro[1:][np.diff(ends) < ROUNDING] = -1
        now = int((needed <= 0).sum())
        best = int(macro.argmax())
        if macro[best] > macro[now] or (np.abs(needed) < ROUNDING).any():
            low = needed[order[best - 1]] if best else needed[order[0]] - 2
            high = ends[best] if np.isfinite(ends[best]) else low + 2
            offsets[label] += (low + high) / 2
    return offsets
