"""The leaderboard, `reports/leaderboard.json`, and the protocol of its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from stages.store.files import read_json
from stages.store.project import PROJECT

# Protocol 2 has rotating validation folds, and everything is fitted on out-of-fold scores. Leaderboards of the former protocol,
# in which validation was one fixed split, have no number.
PROTOCOL = 2


def read_leaderboard(path: Path = PROJECT.leaderboard) -> dict[str, Any]:
    """The leaderboard; raises UserError if its results follow another protocol than this code."""
    board: dict[str, Any] = read_json(path)
    found = board.get("protocol", 1)
    if found != PROTOCOL:
        raise UserError(
            f"{path}: the results follow evaluation protocol {found}, but this code expects protocol {PROTOCOL}, so the"
            " numbers are not comparable; run `dvc repro`"
        )
    return board
