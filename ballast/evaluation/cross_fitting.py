"""The out-of-fold messages of several trainings, and the parts for cross-fitting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.data.splitting import assign_folds, strata
from ballast.evaluation.protocol import OutOfFold

# Parts for cross-fitting if all trainings have the same validation messages.
PARTS = 5


def out_of_fold(rows: Sequence[np.ndarray], classes: np.ndarray, groups: np.ndarray) -> OutOfFold:
    """The out-of-fold messages of several trainings.

    Parameters
    ----------
    rows : the validation rows of each training.
    classes, groups : (n,) of the whole table of messages.

    Notes
    -----
    With rotating folds, a part for cross-fitting is a fold. With one fold, the parts are stratified draws of its groups.

    Examples
    --------
    >>> messages = out_of_fold([np.array([0, 1]), np.array([2, 3])], np.array([0, 1, 0, 1]), np.array([5, 6, 7, 8]))
    >>> messages.training, messages.part, messages.groups
    (array([0, 0, 1, 1]), array([0, 0, 1, 1]), array([0, 1, 2, 3]))
    """
    joined = np.concatenate(rows)
    training = np.repeat(np.arange(len(rows)), [len(of_training) for of_training in rows])
    numbered = np.unique(groups[joined], return_inverse=True)[1]
    first = np.full(int(numbered.max()) + 1, len(rows))
    np.minimum.at(first, numbered, training)
    part = first[numbered] if len(np.unique(first)) > 1 else group_parts(classes[joined], numbered)
    return OutOfFold(
        classes=classes[joined],
        groups=numbered,
        training=training,
        part=part,
        copies=len(joined) / len(np.unique(joined)),
    )


def group_parts(classes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Stratified parts (n,) of whole groups, from classes (n,) and groups (n,).

    Examples
    --------
    >>> np.bincount(group_parts(np.repeat([0, 1], [80, 20]), np.arange(100)))
    array([20, 20, 20, 20, 20])
    """
    group, sizes, members_of = strata(classes, groups, seed=0, classes=int(classes.max()) + 1)
    parts = np.zeros(len(sizes), dtype=np.int64)
    for label, members in enumerate(members_of):
        parts[members] = assign_folds(sizes[members], PARTS, first=label % PARTS)
    return parts[group]
