"""Stratified splits into train, validation and test that never separate a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ballast.errors import UserError

SPLITS = ("train", "validation", "test")


def split_counts(sizes: np.ndarray, fractions: Mapping[str, float]) -> tuple[int, int]:
    """How many of the groups, in the order given, go to test and then to validation; at least one each."""
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    ends = np.searchsorted(middle, [fractions["test"], fractions["test"] + fractions["validation"]])
    test = int(np.clip(ends[0], 1, len(sizes) - 2))
    validation = int(np.clip(ends[1] - test, 1, len(sizes) - test - 1))
    return test, validation


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
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(np.bincount(labels, minlength=len(names)), kind="stable"), kind="stable")
    rarest = np.full(len(sizes), len(names))
    np.minimum.at(rarest, group, rarity[labels])
    order = np.random.default_rng(seed).permutation(len(sizes))
    split_of_group = np.zeros(len(sizes), dtype=np.int64)
    for label, stratum in enumerate(rarity):
        members = order[rarest[order] == stratum]
        if len(members) < len(SPLITS):
            raise UserError(
                f"class {names[label]!r} has {int((labels == label).sum())} messages in {len(members)} groups of"
                f" near duplicates; {len(SPLITS)} splits need at least {len(SPLITS)} groups of each class"
            )
        test, validation = split_counts(sizes[members], fractions)
        split_of_group[members[:test]] = SPLITS.index("test")
        split_of_group[members[test : test + validation]] = SPLITS.index("validation")
    return split_of_group[group]
