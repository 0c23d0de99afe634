"""Stratified splits into train, validation and test that never separate a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ballast.exceptions import UserError

SPLITS = ("train", "validation", "test")


def split_counts(sizes: np.ndarray, fractions: Mapping[str, float]) -> tuple[int, int]:
    """How many of the groups, in the order given, go to test and then to validation; at least one each.

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
    """The groups of each class, shuffled: group (n,) of each row numbered from 0, sizes (g,), groups by class index.

    A group belongs to the rarest of the classes that its rows have.

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
    """Raise UserError for a class whose groups, its `members`, are fewer than the parts need.

    Examples
    --------
    >>> labels, names = np.array([0, 0, 0, 1]), ["ham", "spam"]
    >>> require_groups(labels, 1, np.array([3]), names, least=3, parts="3 splits")
    Traceback (most recent call last):
    ballast.exceptions.UserError: class 'spam' has ...
    """
    if len(members) < least:
        raise UserError(
            f"class {names[label]!r} has {int((labels == label).sum())} messages in {len(members)} groups of"
            f" near duplicates; {parts} need at least {least} groups of each class"
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
    names : the K label names, for messages.

    Returns
    -------
    (n,) indices into `SPLITS`.

    Raises
    ------
    UserError : a class has too few groups to be in every split.

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
    """The fold (g,) of each group: groups of `sizes` (g,) rows, dealt to and fro from the largest, starting at fold `first`.

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
    """Assign each row to a split so that the tests of `index` = 0, ..., `count` - 1 partition the rows by groups, stratified.

    Source: Kohavi, A Study of Cross-Validation and Bootstrap (1995). Arguments, value and errors as of
    `stratified_grouped_split`; `validation` is the share of all rows that is carved out of the other folds.

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100) // 2
    >>> names = ["ham", "spam"]
    >>> folds = [stratified_grouped_fold(labels, groups, 5, index, 0.1, seed=0, names=names) for index in range(5)]
    >>> tested = np.array([split == SPLITS.index("test") for split in folds])
    >>> tested.sum(axis=0).tolist() == [1] * 100, tested.sum(axis=1)
    (True, array([20, 20, 20, 20, 20]))
    """
    # The other folds must hold a group for train and one for validation.
    least = max(count, 4 if count == 2 else 3)
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    split_of_group = np.zeros(len(sizes), dtype=np.int64)
    for label, members in enumerate(members_of):
        require_groups(labels, label, members, names, least, f"{count} folds")
        # Strata start at different folds: the odd groups of all would else be in the first.
        in_test = assign_folds(sizes[members], count, first=label % count) == index
        rest = members[~in_test]
        ends = np.cumsum(sizes[rest]) - sizes[rest] / 2
        carved = int(np.clip(np.searchsorted(ends, validation * sizes[members].sum()), 1, len(rest) - 1))
        split_of_group[members[in_test]] = SPLITS.index("test")
        split_of_group[rest[:carved]] = SPLITS.index("validation")
    return split_of_group[group]


def nested_subsample(labels: np.ndarray, groups: np.ndarray, share: float, seed: int, names: list[str]) -> np.ndarray:
    """Which rows (n,) of labels (n,) and groups (n,) are in the share: stratified, by whole groups, one of each class at least.

    Nested: the rows of a smaller share are among those of a larger one, and a share of 1 holds all.

    Examples
    --------
    >>> labels, groups = np.repeat([0, 1], [80, 20]), np.arange(100)
    >>> tenth = nested_subsample(labels, groups, 0.1, seed=0, names=["ham", "spam"])
    >>> half = nested_subsample(labels, groups, 0.5, seed=0, names=["ham", "spam"])
    >>> np.bincount(labels[tenth]), np.bincount(labels[half]), bool((half[tenth]).all())
    (array([8, 2]), array([40, 10]), True)
    """
    group, sizes, members_of = strata(labels, groups, seed, len(names))
    kept = np.zeros(len(sizes), dtype=bool)
    for members in members_of:
        middle = np.cumsum(sizes[members]) - sizes[members] / 2
        kept[members[: max(1, int(np.searchsorted(middle, share * sizes[members].sum())))]] = True
    return kept[group]
