"""Free the disk of the files of old windows. Versions of the model are pruned where they are made."""

from __future__ import annotations

import sys
from pathlib import Path

from ballast.exceptions import UserError
from ballast.io.paths import real_folder, regular_file
from stages.store.checked import read_frame
from stages.store.project import PROJECT
from stages.store.tables import read_file

# The time line over all windows.
INDEX = "index"
OF_WINDOWS = ((PROJECT.scored, ".parquet"), (PROJECT.quarantine, ".jsonl"), (PROJECT.watch, ".json"), (PROJECT.watch, ".html"))


def prune_windows(keep: int, spared: str | None = None) -> list[str]:
    """Delete the scored messages, quarantine and watch files of all but the newest `keep` windows; returns their names.

    Names sort in the order of time. The window that is spared stays, and each with labels whose texts are not frozen in
    `production/feedback.parquet` yet.
    """
    files: dict[str, list[Path]] = {}
    for folder, ending in OF_WINDOWS:
        for path in folder.glob(f"*{ending}"):
            files.setdefault(path.name.removesuffix(ending), []).append(path)
    windows = sorted(name for name in files if name != INDEX and not name.startswith("."))
    doomed = [name for name in windows[:-keep] if name != spared]
    if not doomed:
        return []
    try:
        waiting = labelled_ids() - frozen_ids()
    except UserError as error:
        print(f"prune: no window is deleted, for it may have labels that cannot be read: {error}", file=sys.stderr)
        return []
    doomed = [name for name in doomed if not (waiting and waiting & scored_ids(name))]
    for name in doomed:
        for path in files[name]:
            path.unlink(missing_ok=True)
    return doomed


def labelled_ids() -> set[str]:
    """The ids of all messages that somebody has labelled; raises UserError for a file that cannot be read."""
    there = PROJECT.labels.iterdir() if real_folder(PROJECT.labels) else ()
    paths = sorted(path for path in there if not path.name.startswith(".") and regular_file(path))
    tables = [read_file(str(path), "file", {"id": "id", "label": "label"}, None) for path in paths]
    return {
        str(row["id"])
        for table in tables
        for row in table.to_pylist()
        if row["label"] is not None and str(row["label"]).strip()
    }


def frozen_ids() -> set[str]:
    """The ids of the messages whose texts are kept with their labels."""
    return ids_of(PROJECT.labelled) if regular_file(PROJECT.labelled) else set()


def scored_ids(window: str) -> set[str]:
    """The ids of a window's messages."""
    path = PROJECT.scored / f"{window}.parquet"
    return ids_of(path) if regular_file(path) else set()


def ids_of(path: Path) -> set[str]:
    """The column id of a parquet file; raises UserError when it cannot be read."""
    return set(read_frame(path, ["id"])["id"].astype(str))
