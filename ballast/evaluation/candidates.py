"""Candidate thresholds of a rule on held-out messages, and on resamples of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import log_softmax

from ballast.evaluation.guarantee import Units, independent_units
from ballast.evaluation.rules import Rule
from ballast.evaluation.thresholds import Thresholds, all_thresholds, log_margins


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The thresholds of a label on held-out messages.

    margins, classes, groups : (n,), with groups numbered from 0.
    class_weights : (K,) weights of the messages that give the class shares of production.
    """

    margins: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    class_weights: np.ndarray
    label: int

    def thresholds(self) -> Thresholds:
        """All thresholds of these messages."""
        return all_thresholds(self.margins, self.classes == self.label, self.class_weights[self.classes])

    def units(self) -> Units:
        """The independent units."""
        return independent_units(self.margins, self.classes, self.label, self.groups, self.class_weights)


def ranking_label(rule: Rule, labels: int) -> int | None:
    """The class whose thresholds a rule searches; the second of two for rules of all classes; None if there is no such class.

    Examples
    --------
    >>> ranking_label(Rule(kind="f1", label=2), labels=3), ranking_label(Rule(kind="macro_f1"), labels=2)
    (2, 1)
    """
    return rule.label if rule.of_one_class else 1 if labels == 2 else None


def candidates_of(
    rule: Rule, logits: np.ndarray, classes: np.ndarray, class_weights: np.ndarray, groups: np.ndarray | None
) -> Candidates:
    """The candidate thresholds of a rule's label; without groups, each message is its own.

    Examples
    --------
    >>> found = candidates_of(Rule(kind="f1", label=1), np.zeros((2, 2)), np.array([0, 1]), np.ones(2), None)
    >>> found.margins, found.groups
    (array([0., 0.]), array([0, 1]))
    """
    label = ranking_label(rule, logits.shape[1])
    assert label is not None
    _, numbers = np.unique(np.arange(len(classes)) if groups is None else groups, return_inverse=True)
    margins = log_margins(log_softmax(logits, axis=1), label)
    return Candidates(margins=margins, classes=classes, groups=numbers, class_weights=class_weights, label=label)


def cells_of(candidates: Candidates, at: np.ndarray) -> list[sparse.csr_array]:
    """For each class, its messages (groups, c + 1) by group and by the first of the falling thresholds `at` (c,) below them.

    The last column holds the messages below all thresholds.

    Examples
    --------
    >>> found = candidates_of(Rule(kind="f1", label=1), np.array([[0, -1.0], [0, 1.0]]), np.array([0, 1]), np.ones(2), None)
    >>> [cells.toarray().tolist() for cells in cells_of(found, np.array([0.0]))]
    [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]
    """
    shape = (int(candidates.groups.max()) + 1, len(at) + 1)
    columns = np.searchsorted(-at, -candidates.margins, side="right")
    cells = []
    for label in range(len(candidates.class_weights)):
        members = candidates.classes == label
        ones = np.ones(np.count_nonzero(members))
        cells.append(sparse.coo_array((ones, (candidates.groups[members], columns[members])), shape=shape).tocsr())
    return cells


def resampled_thresholds(
    candidates: Candidates, at: np.ndarray, cells: Sequence[sparse.csr_array], counts: np.ndarray
) -> Thresholds:
    """The thresholds `at` (c,) on resamples, from counts (b, groups); each resample has the class shares of production.

    Examples
    --------
    >>> found = candidates_of(Rule(kind="f1", label=1), np.array([[0, -1.0], [0, 1.0]]), np.array([0, 1]), np.ones(2), None)
    >>> at = np.array([0.0])
    >>> resampled_thresholds(found, at, cells_of(found, at), np.array([[1.0, 2.0]])).precision
    array([[1.]])
    """
    sums: dict[bool, np.ndarray] = {}
    for label, of_class in enumerate(cells):
        drawn = counts @ of_class
        weight = candidates.class_weights[label] * of_class.sum() / np.maximum(drawn.sum(axis=1, keepdims=True), 1)
        positive = label == candidates.label
        sums[positive] = sums.get(positive, 0) + drawn * weight
    hits, wrong = (np.cumsum(sums[positive], axis=1) for positive in (True, False))
    return Thresholds(
        at=at,
        hits=hits[:, :-1],
        assigned=(hits + wrong)[:, :-1],
        members=hits[:, -1],
        others=wrong[:, -1],
    )
