"""Stratified test sets and folds that never separate a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ballast.exceptions import UserError
from ballast.io.printable import counted

SPLITS = ("train", "validation", "test")
# The fold of rows that rotate through no validation: those of the test set.
NO_FOLD = -1


def rotation_folds(fractions: Mapping[str, float]) -> int:
    """Number of folds of the messages outside the test set, each with the share `validation` of all messages.

    Examples
    --------
    >>> rotation_folds({"train": 0.7, "validation": 0.1, "test": 0.2})
    8
    """
    return round((1 - fractions["test"]) / fractions["validation"])


def folds_by_hash(groups: np.ndarray, count: int) -> np.ndarray:
    """The fold (n,), one of `count`, of each group (n,) int64 by its fingerprint, so that it is the same in every table.

    Examples
    --------
    >>> folds_by_hash(np.array([16, 19, -1]), count=8)
    array([0, 3, 7])
    """
    return (groups.view(np.uint64) % np.uint64(count)).astype(np.int64)


def strata(labels: np.ndarray, groups: np.ndarray, seed: int, classes: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Shuffle the groups and sort them by class. A group belongs to the rarest class among its rows.

    Returns
    -------
    group : (n,) of each row, numbered from 0.
    sizes : (g,) rows of each group.
    members : the shuffled groups of each class, by class index.

    Examples
    --------
    >>> labels, groups = np.array([0, 0, 1, 0]), np.array([5, 5, 8, 9])
    >>> group, sizes, members = strata(labels, groups, seed=0, classes=2)
    >>> group, sizes, [sorted(of_class.tolist()) for of_class in members]
    (array([0, 0, 1, 2]), array([2, 1, 1]), [[0, 2], [1]])
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(np.bincount(labels, minlength=classes), kind="stable"), kind="stable")
    rarest = np.full(len(sizes), classes)
    np.minimum.at(rarest, group, rarity[labels])
    order = np.random.default_rng(seed).permutation(len(sizes))
    return group, sizes, [order[rarest[order] == stratum] for stratum in rarity]


def require_groups(labels: np.ndarray, label: int, members: np.ndarray, names: list[str], least: int, parts: str) -> None:
    """Raise UserError if a class has fewer than `least` groups, its `members`; `parts` says in the message what needs them.

    Examples
    --------
    >>> labels, names = np.array([0, 0, 0, 1]), ["ham", "spam"]
    >>> require_groups(labels, 1, np.array([3]), names, least=3, parts="3 splits")
    Traceback (most recent call last):
    ballast.exceptions.UserError: class 'spam' has ...
    """
    if len(members) < least:
        messages, groups = counted(int((labels == label).sum()), "message"), counted(len(members), "group")
        raise UserError(
            f"class {names[label]!r} has {messages} in {groups} of near duplicates;"
            f" {parts} need at least {least} groups of each class"
        )


def stratified_grouped_test(
    labels: np.ndarray, groups: np.ndarray, share: float, n_folds: int, seed: int, names: list[str]
) -> np.ndarray:
    """Choose a test set of a share of the rows so that every class keeps its share and no group is separated.

    Parameters
    ----------
    labels : (n,) class indices below K.
    groups : (n,) group numbers; `np.arange(n)` gives an ordinary stratified split.
    share : of the rows for test, in (0, 1).
    n_folds : number of folds that the other rows will be divided into; each class keeps a group for each.
    seed : of the shuffle of the groups.
    names : the K label names, for error messages.

    Returns
    -------
    (n,) booleans, True in the test set, which has at least one group of each class.

    Raises
    ------
    UserError : a class has too few groups.

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100) // 2
    >>> test = stratified_grouped_test(labels, groups, 0.2, n_folds=8, seed=0, names=["ham", "spam"])
    >>> np.bincount(labels[test])
    array([16,  4])
    >>> all(len(set(test[groups == group])) == 1 for group in range(50))
    True
    """
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    in_test = np.zeros(len(sizes), dtype=bool)
    for label, members in enumerate(members_of):
        require_groups(labels, label, members, names, n_folds + 1, f"a test split and {n_folds} folds")
        middle = np.cumsum(sizes[members]) - sizes[members] / 2
        count = np.searchsorted(middle, share * sizes[members].sum())
        in_test[members[: int(np.clip(count, 1, len(members) - n_folds))]] = True
    return in_test[group]


def assign_folds(sizes: np.ndarray, count: int, first: int) -> np.ndarray:
    """Assign groups of `sizes` (g,) rows to `count` folds (g,), the largest group first.

    The assignment runs through the folds forwards and backwards in turn, beginning with fold `first`.

    Examples
    --------
    >>> assign_folds(sizes=np.array([5, 1, 1, 1, 1, 1]), count=3, first=0)
    array([0, 1, 2, 2, 1, 0])
    """
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    round_of, place = np.divmod(rank, count)
    return (np.where(round_of % 2, count - 1 - place, place) + first) % count


def stratified_grouped_folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int, names: list[str]) -> np.ndarray:
    """Assign each row to one of `count` stratified folds of whole groups.

    Parameters
    ----------
    labels, groups, seed, names : as for `stratified_grouped_test`.
    count : number of folds.

    Returns
    -------
    (n,) fold of each row, from 0. Every class is in every fold.

    Raises
    ------
    UserError : a class has fewer groups than folds.

    Notes
    -----
    Source: Kohavi, A Study of Cross-Validation and Bootstrap (1995).

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100) // 2
    >>> folds = stratified_grouped_folds(labels, groups, 5, seed=0, names=["ham", "spam"])
    >>> [np.bincount(labels[folds == fold]).tolist() for fold in range(5)]
    [[16, 4], [16, 4], [16, 4], [16, 4], [16, 4]]
    >>> all(len(set(folds[groups == group])) == 1 for group in range(50))
    True
    """
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    fold_of_group = np.zeros(len(sizes), dtype=np.int64)
    for label, members in enumerate(members_of):
        require_groups(labels, label, members, names, count, f"{count} folds")
        # Strata start at different folds; otherwise the first fold gets the surplus groups of all of them.
        fold_of_group[members] = assign_folds(sizes[members], count, first=label % count)
    return fold_of_group[group]


def nested_subsample(
    labels: np.ndarray, groups: np.ndarray, share: float, seed: int, names: list[str], least: int = 1
) -> np.ndarray:
    """Choose a share of the rows, stratified and by whole groups, with at least `least` groups of each class if it has them.

    Subsamples are nested: the rows of a smaller share are among those of a larger one. A share of 1 holds all rows.

    Parameters
    ----------
    labels, groups, seed, names : as for `stratified_grouped_test`.
    share : of the rows of each class, in (0, 1].

    Returns
    -------
    (n,) booleans, True for the chosen rows.

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100)
    >>> tenth = nested_subsample(labels, groups, 0.1, seed=0, names=["ham", "spam"])
    >>> half = nested_subsample(labels, groups, 0.5, seed=0, names=["ham", "spam"])
    >>> np.bincount(labels[tenth]), np.bincount(labels[half]), bool((half[tenth]).all())
    (array([8, 2]), array([40, 10]), True)
    """
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    chosen = np.zeros(len(sizes), dtype=bool)
    for members in members_of:
        middle = np.cumsum(sizes[members]) - sizes[members] / 2
        chosen[members[: max(least, int(np.searchsorted(middle, share * sizes[members].sum())))]] = True
    return chosen[group]
