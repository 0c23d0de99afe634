"""Delete the files of old windows. `versions.prune_versions` deletes old versions of the model."""

from __future__ import annotations

import sys
from pathlib import Path

from ballast.exceptions import UserError
from ballast.io.paths import real_folder, regular_file
from stages.production.answered import COMPANIONS, ENDING
from stages.production.labelling import spelled_for_people
from stages.store.checked import read_frame
from stages.store.project import PROJECT
from stages.tables.labels import read_labelled

# The time line over all windows.
INDEX = "index"
OF_WINDOWS = (
    (PROJECT.scored, ".parquet"),
    (PROJECT.shadow, ".parquet"),
    (PROJECT.quarantine, ".jsonl"),
    (PROJECT.watch, ".json"),
    (PROJECT.watch, ".html"),
    *((PROJECT.answered, f"{ENDING}{companion}") for companion in ("", *COMPANIONS)),
    *((PROJECT.to_label, ending) for ending in (".csv", ".html", ".label_studio.json", ".label_studio.xml")),
)


def prune_windows(keep: int, spared: str | None = None) -> list[str]:
    """Delete all files of windows except the newest `keep`; returns their names.

    The names of windows sort by time. The window `spared` stays, as does a window with labelled messages that
    `production/feedback.parquet` does not contain yet.
    """
    files: dict[str, list[Path]] = {}
    for folder, ending in OF_WINDOWS:
        for path in folder.glob(f"*{ending}"):
            files.setdefault(path.name.removesuffix(ending), []).append(path)
    windows = sorted(name for name in files if name != INDEX and not name.startswith("."))
    outdated = [name for name in windows[:-keep] if name != spared]
    if not outdated:
        return []
    try:
        waiting = labelled_ids() - stored_ids()
    except UserError as error:
        print(f"prune: no window is deleted, because labels cannot be read: {error}", file=sys.stderr)
        return []
    outdated = [name for name in outdated if not (waiting and waiting & scored_ids(name))]
    for name in outdated:
        for path in files[name]:
            path.unlink(missing_ok=True)
    return outdated


def labelled_ids() -> set[str]:
    """The ids of all labelled messages; raises UserError for a file that cannot be read."""
    there = PROJECT.labels.iterdir() if real_folder(PROJECT.labels) else ()
    paths = sorted(path for path in there if not path.name.startswith(".") and regular_file(path))
    tables = [read_labelled(path).table for path in paths]
    spelled = spelled_for_people()
    return {
        spelled.get(str(row["id"]), str(row["id"]))
        for table in tables
        for row in table.to_pylist()
        if row["label"] is not None and str(row["label"]).strip()
    }


def stored_ids() -> set[str]:
    """The ids of the messages that are stored with their labels."""
    return ids_of(PROJECT.labelled) if regular_file(PROJECT.labelled) else set()


def scored_ids(window: str) -> set[str]:
    """The ids of a window's messages."""
    path = PROJECT.scored / f"{window}.parquet"
    return ids_of(path) if regular_file(path) else set()


def ids_of(path: Path) -> set[str]:
    """The column id of a parquet file; raises UserError when it cannot be read."""
    return set(read_frame(path, ["id"])["id"].astype(str))
