"""Check the files with which people label the messages of a window, against the window and what the watch wrote about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.production.label_studio import ENDING, interface, tasks_of
from stages.production.windows import read_window
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.relabelled import cell
from stages.store.remedies import damaged
from stages.tables.detect import Expected
from stages.tables.training import read_training

SHOWN = ("id", "text", "predicted", "why", "stratum")


def check_sheet(path: Path, watched: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Raise UserError unless each row of a sheet shows a message to label; people may fill in, delete and move rows."""
    rows = {
        cell(row["id"]): [cell(value) for value in (row["id"], texts[row["id"]], *(row[name] for name in SHOWN[2:]))]
        for row in watched["to_label"]
        if row["id"] in texts
    }
    try:
        read = read_training(str(path), Expected(wanted=dict.fromkeys(SHOWN, "expected the sheet of the watch"), setting=""))
        table = read.table.select(SHOWN).to_pylist()
    except UserError as error:
        raise damaged(path, error) from error
    for number, row in enumerate(table, 1):
        if list(row.values()) != rows.get(row["id"]):
            raise damaged(path, f"row {number} is not as the watch wrote it")


def check_page(path: Path, watched: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Raise UserError if a page differs from the one that the watch wrote."""
    expected = watched.get("page_sha256")
    if expected is not None and file_sha256(path) != expected:
        raise damaged(path, "its sha256 is wrong")


def check_tasks(path: Path, watched: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Raise UserError unless a file holds the tasks that the export to Label Studio writes."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if all(row["id"] in texts for row in watched["to_label"]) and found != tasks_of(watched, texts):
        raise damaged(path, "differs from the window")


def check_interface(path: Path, watched: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Raise UserError unless a file is the interface that the export to Label Studio writes."""
    if path.read_bytes() != f"{interface(watched['labels'])}\n".encode():
        raise damaged(path, "differs from the labels of the window")


CHECKS = {".csv": check_sheet, ".html": check_page, f"{ENDING}.json": check_tasks, f"{ENDING}.xml": check_interface}


def check_file(path: Path, ending: str) -> None:
    """Raise UserError if a file with which people label a window is damaged; there is no check without the window."""
    window = path.name.removesuffix(ending)
    result = PROJECT.watch / f"{window}.json"
    if not result.is_file() or not (PROJECT.scored / f"{window}.parquet").is_file():
        return
    table, _ = read_window(window)
    CHECKS[ending](path, read_json(result), dict(zip(table["id"], table["text"], strict=True)))


def labelling_checks() -> dict[Path, Callable[[], object]]:
    """The checks of all files with which people label."""
    paths = sorted(PROJECT.to_label.glob("*")) if PROJECT.to_label.is_dir() else []
    # The longest ending counts.
    endings = {path: max((ending for ending in CHECKS if path.name.endswith(ending)), key=len, default="") for path in paths}
    return {path: partial(check_file, path, ending) for path, ending in endings.items() if ending}
