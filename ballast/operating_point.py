"""Operating points: the threshold on a class's posterior, chosen on validation only."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ballast.metrics import ratio

ROUNDING = 1e-9


def f1_threshold(log_odds: np.ndarray, positive: np.ndarray) -> float:
    """The probability above which a message is assigned to the class so that its F1 is highest.

    log_odds (n,) of the class against the rest, positive (n,) booleans with at least one true. Halfway between two
    neighbouring scores, and of equal F1 the highest threshold: it assigns fewer messages to the class.
    """
    scores, rank = np.unique(log_odds, return_inverse=True)
    true_positives = np.cumsum(np.bincount(rank, weights=positive)[::-1])[::-1]
    assigned = np.cumsum(np.bincount(rank)[::-1])[::-1]
    f1 = ratio(2 * true_positives, assigned + positive.sum())
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    below = scores[best - 1] if best else scores[0] - 1
    return float(expit((scores[best] + below) / 2))


def macro_f1_offsets(logits: np.ndarray, labels: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Offsets (K,) whose addition to logits (n, K) gives the decisions with the highest macro F1 for labels (n,).

    Each class in turn gets the best offset with the others fixed. For two classes that is the exact optimum.
    """
    classes = logits.shape[1]
    offsets = np.zeros(classes)
    support = np.bincount(labels, minlength=classes)
    for label in list(range(classes)) * sweeps if classes > 2 else [1]:
        shifted = logits + offsets
        others = np.delete(shifted, label, axis=1)
        rival = others.argmax(axis=1)
        rival += rival >= label
        needed = others.max(axis=1) - shifted[:, label]
        order = np.argsort(needed, kind="stable")
        # After the k-th of these messages has moved to the class: what each class was assigned, and rightly so.
        moved = np.zeros((len(labels) + 1, classes))
        np.add.at(moved, (np.arange(1, len(labels) + 1), rival[order]), 1)
        right = moved.copy()
        right[1:][labels[order] != rival[order]] = 0
        assigned = np.bincount(rival, minlength=classes) - moved.cumsum(axis=0)
        hits = np.bincount(rival[labels == rival], minlength=classes) - right.cumsum(axis=0)
        assigned[:, label] = np.arange(len(labels) + 1)
        hits[:, label] = np.concatenate([[0], (labels[order] == label).cumsum()])
        macro = ratio(2 * hits, assigned + support).mean(axis=1)
        ends = np.concatenate([needed[order], [np.inf]])
        # Needs that are equal but for rounding move together, so only the last of them is a choice.
        macro[1:][np.diff(ends) < ROUNDING] = -1
        now = int((needed <= 0).sum())
        best = int(macro.argmax())
        if macro[best] > macro[now] or (needed == 0).any():
            low = needed[order[best - 1]] if best else needed[order[0]] - 2
            high = ends[best] if np.isfinite(ends[best]) else low + 2
            offsets[label] += (low + high) / 2
    return offsets
