"""Whether every class has enough groups of near duplicates to be divided; an error names all classes that have not."""

from __future__ import annotations

import numpy as np

from ballast.data.splitting import require_groups, strata
from ballast.exceptions import UserError, short

# Characters of the list of classes in an error, which is one line.
MOST_CHARACTERS = 550


def check_class_sizes(labels: np.ndarray, groups: np.ndarray, names: list[str], least: int, parts: str) -> None:
    """Raise UserError that names all classes with fewer than `least` groups, the smallest first.

    Parameters
    ----------
    labels : (n,) class indices below K.
    groups : (n,) group numbers; a group of several classes belongs to the rarest of them.
    names : the K label names.
    least : number of groups that each class needs.
    parts : what needs them, in the message.

    Examples
    --------
    >>> labels = np.repeat([0, 1, 2], [9, 2, 1])
    >>> check_class_sizes(labels, np.arange(12), ["ham", "spam", "fraud"], least=3, parts="3 folds")
    Traceback (most recent call last):
    ballast.exceptions.UserError: 2 classes have too few groups of near duplicates; 3 folds need ...
    """
    _, _, members_of = strata(labels, groups, 0, len(names))
    few = sorted((len(members), names[label], label) for label, members in enumerate(members_of) if len(members) < least)
    if len(few) < 2:
        for _, _, label in few:
            require_groups(labels, label, members_of[label], names, least, parts)
        return
    listed: list[str] = []
    for count, name, _ in few:
        listed.append(f"{short(name)!r} {count:,}")
        if len(", ".join(listed)) > MOST_CHARACTERS:
            break
    more = f" and {len(few) - len(listed):,} more" if len(few) > len(listed) else ""
    raise UserError(
        f"{len(few):,} classes have too few groups of near duplicates; {parts} need at least {least} groups of each class;"
        f" groups by class: {', '.join(listed)}{more}"
    )
