"""Units of independent messages, splits by time, and units that cross splits.

A unit holds the messages that must not be divided between training and test: near duplicates and, if the data has a column for
it, the messages of one sender, account or thread.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def united(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Unite groups of near duplicates that share a key, and messages of one key: connected components.

    Parameters
    ----------
    groups : (n,) int64 of near duplicates.
    keys : (n,) such as senders; a message with the key None belongs to its group only.

    Returns
    -------
    (n,) int64 unit of each message: the group of the first message in the unit.

    Examples
    --------
    >>> groups = np.array([7, 8, 7, 9, 6])
    >>> united(groups, np.array(["ann", "bob", "bob", None, None], dtype=object))
    array([7, 7, 7, 9, 6])
    """
    group, key = np.unique(groups, return_inverse=True)[1], pd.factorize(keys)[0]
    linked = key >= 0
    n_groups = int(group.max(initial=-1)) + 1
    size = n_groups + int(key.max(initial=-1)) + 1
    edges = coo_array((np.ones(linked.sum(), dtype=np.int8), (group[linked], n_groups + key[linked])), shape=(size, size))
    component = connected_components(edges, directed=False)[1][group]
    _, first, unit = np.unique(component, return_index=True, return_inverse=True)
    return groups[first][unit]


def split_by_time(times: np.ndarray, validation: float, test: float) -> np.ndarray:
    """Divide messages by time: the last share is for test, the share before it for validation. Equal times stay together.

    Parameters
    ----------
    times : (n,) numbers, in any order; at least three differ.
    validation, test : shares of the messages, in (0, 1).

    Returns
    -------
    (n,) 0 for training, 1 for validation, 2 for test. The shares are as close to those asked for as ties allow, and no split
    is empty.

    Examples
    --------
    >>> split_by_time(np.array([30, 10, 20, 40, 50, 50]), validation=0.2, test=0.3)
    array([0, 0, 0, 1, 2, 2])
    """
    _, at, sizes = np.unique(times, return_inverse=True, return_counts=True)
    # Messages at the start of each distinct time or later, as a share.
    later = np.cumsum(sizes[::-1])[::-1] / len(times)
    last = 2 + int(np.abs(later[2:] - test).argmin())
    middle = 1 + int(np.abs(later[1:last] - later[last] - validation).argmin())
    codes: np.ndarray = (at >= middle).astype(np.int64) + (at >= last)
    return codes


def crossing(units: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Whether the unit of each message (n,) is also in a later split; `splits` (n,) are numbered in their order.

    Without these messages, no unit is in two splits, and the last split is complete.

    Examples
    --------
    >>> crossing(units=np.array([5, 5, 5, 6, 7]), splits=np.array([0, 1, 2, 0, 2]))
    array([ True,  True, False, False, False])
    """
    unit = np.unique(units, return_inverse=True)[1]
    latest = np.zeros(int(unit.max(initial=-1)) + 1, dtype=splits.dtype)
    np.maximum.at(latest, unit, splits)
    late: np.ndarray = splits < latest[unit]
    return late
