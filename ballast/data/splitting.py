"""Stratified splits into train, validation and test that never separate a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ballast.exceptions import UserError
from ballast.io.printable import counted

SPLITS = ("train", "validation", "test")


def split_counts(sizes: np.ndarray, fractions: Mapping[str, float]) -> tuple[int, int]:
    """Number of groups for test and for validation, from group sizes (g,) in the order of assignment; at least one each.

    Examples
    --------
    >>> split_counts(np.ones(10), {"test": 0.2, "validation": 0.1})
    (2, 1)
    """
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    ends = np.searchsorted(middle, [fractions["test"], fractions["test"] + fractions["validation"]])
    test = int(np.clip(ends[0], 1, len(sizes) - 2))
    validation = int(np.clip(ends[1] - test, 1, len(sizes) - test - 1))
    return test, validation


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


def stratified_grouped_split(
    labels: np.ndarray, groups: np.ndarray, fractions: Mapping[str, float], seed: int, names: list[str]
) -> np.ndarray:
    """Assign each row to a split so that every class keeps its share and no group is separated.

    Parameters
    ----------
    labels : (n,) class indices below K.
    groups : (n,) group numbers; `np.arange(n)` gives an ordinary stratified split.
    fractions : share of the rows for train, validation and test; they sum to 1.
    seed : of the shuffle of the groups.
    names : the K label names, for error messages.

    Returns
    -------
    (n,) indices into `SPLITS`.

    Raises
    ------
    UserError : a class has fewer groups than splits.

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100) // 2
    >>> fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    >>> split = stratified_grouped_split(labels, groups, fractions, seed=0, names=["ham", "spam"])
    >>> [np.bincount(labels[split == part]).tolist() for part in range(3)]
    [[64, 16], [8, 2], [8, 2]]
    >>> all(len(set(split[groups == group])) == 1 for group in range(50))
    True
    """
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    split_of_group = np.zeros(len(sizes), dtype=np.int64)
    for label, members in enumerate(members_of):
        require_groups(labels, label, members, names, len(SPLITS), f"{len(SPLITS)} splits")
        test, validation = split_counts(sizes[members], fractions)
        split_of_group[members[:test]] = SPLITS.index("test")
        split_of_group[members[test : test + validation]] = SPLITS.index("validation")
    return split_of_group[group]


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


def stratified_grouped_fold(
    labels: np.ndarray, groups: np.ndarray, count: int, index: int, validation: float, seed: int, names: list[str]
) -> np.ndarray:
    """Assign each row to a split of one fold of a stratified, grouped cross-validation.

    The test sets of the folds `index` = 0, ..., `count` - 1 partition the rows by whole groups.

    Parameters
    ----------
    labels, groups, seed, names : as for `stratified_grouped_split`.
    count : number of folds.
    index : of the fold that is the test set.
    validation : share of all rows that goes to validation, taken from the other folds.

    Returns
    -------
    (n,) indices into `SPLITS`.

    Raises
    ------
    UserError : a class has too few groups for the folds.

    Notes
    -----
    Source: Kohavi, A Study of Cross-Validation and Bootstrap (1995).

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100) // 2
    >>> names = ["ham", "spam"]
    >>> folds = [stratified_grouped_fold(labels, groups, 5, index, 0.1, seed=0, names=names) for index in range(5)]
    >>> tested = np.array([split == SPLITS.index("test") for split in folds])
    >>> tested.sum(axis=0).tolist() == [1] * 100, tested.sum(axis=1)
    (True, array([20, 20, 20, 20, 20]))
    """
    # The other folds need a group for train and one for validation.
    least = max(count, 4 if count == 2 else 3)
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    split_of_group = np.zeros(len(sizes), dtype=np.int64)
    for label, members in enumerate(members_of):
        require_groups(labels, label, members, names, least, f"{count} folds")
        # Strata start at different folds; otherwise the first fold gets the surplus groups of all of them.
        in_test = assign_folds(sizes[members], count, first=label % count) == index
        rest = members[~in_test]
        ends = np.cumsum(sizes[rest]) - sizes[rest] / 2
        for_validation = int(np.clip(np.searchsorted(ends, validation * sizes[members].sum()), 1, len(rest) - 1))
        split_of_group[members[in_test]] = SPLITS.index("test")
        split_of_group[rest[:for_validation]] = SPLITS.index("validation")
    return split_of_group[group]


def nested_subsample(labels: np.ndarray, groups: np.ndarray, share: float, seed: int, names: list[str]) -> np.ndarray:
    """Choose a share of the rows, stratified and by whole groups, with at least one group of each class.

    Subsamples are nested: the rows of a smaller share are among those of a larger one. A share of 1 holds all rows.

    Parameters
    ----------
    labels, groups, seed, names : as for `stratified_grouped_split`.
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
        chosen[members[: max(1, int(np.searchsorted(middle, share * sizes[members].sum())))]] = True
    return chosen[group]
