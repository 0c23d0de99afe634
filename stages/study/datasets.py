"""Run the benchmark across data sets: every data set whose file or hub name is available, and what holds across them.

Reads `studies/datasets/params.yaml`; writes `studies/results/datasets/<name>.json` for each data set, `seconds.csv` beside
them, and `studies/results/datasets.json`. A data set whose result is up to date is skipped; delete its file to run it again.
"""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ballast.cli import parser
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.store.across_data_sets import (
    SECONDS_COLUMNS,
    DataSet,
    DataSetResult,
    across_path,
    content_of,
    data_set_path,
    folder,
    raw_path,
    read_published,
    read_result,
    read_seconds,
    read_settings,
    seconds_path,
    settings_digest,
    with_place,
)
from stages.store.files import replaced, write_json
from stages.store.params import Params
from stages.store.running import run
from stages.study.across import across


def say(line: str) -> None:
    """Print a line about the run."""
    print(f"datasets: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a data set is: the keys of `ingest`, the sha256 of its file if it is one, and whether it is available here."""

    ingest: dict[str, Any]
    sha256: str | None = None
    available: bool = True

    @property
    def on_hub(self) -> bool:
        """Whether the data set is read from the hub."""
        return self.ingest.get("source") == "hub"


def location_of(name: str, data_set: DataSet) -> Location:
    """The location of a data set: its file, otherwise the hub, otherwise where its file is expected."""
    path = raw_path(name)
    if data_set.file is None and data_set.hub is None:
        # The example: its source is part of its params, and ingest obtains it.
        return Location(ingest={})
    of_file = {"source": "csv", "path": path.as_posix(), **(data_set.file or {})}
    if data_set.file is not None and path.is_file():
        return Location(ingest=of_file, sha256=file_sha256(path))
    if data_set.hub is not None:
        return Location(ingest={"source": "hub", **data_set.hub})
    return Location(ingest=of_file, available=False)


def how_to_get(name: str, data_set: DataSet) -> str:
    """What is missing, and where it is from."""
    columns = sorted(str(value) for key, value in (data_set.file or {}).items() if key.endswith("_column"))
    return f"no {raw_path(name)} (columns {', '.join(columns)}); the data are at {data_set.address}"


def write_seconds(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the rows of a data set in the table of seconds."""
    old = [row for row in read_seconds() if row["data_set"] != name]
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs"
    new = [
        {
            "data_set": name,
            "entry": row["entry"],
            "training_seconds": f"{row['training_seconds']:.1f}",
            "message_passes": f"{row['message_passes']:.0f}",
            "machine": machine,
        }
        for row in rows
    ]
    with replaced(seconds_path()) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, SECONDS_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*old, *new], key=lambda row: row["data_set"]))


def up_to_date(name: str, settings: str, source: str | None) -> DataSetResult | None:
    """The result of a data set for these settings and this file, if there is one; a result stays valid without its file."""
    result = read_result(name, settings)
    return result if result is not None and source in (None, result.source) else None


def measure(name: str, data_set: DataSet, location: Location, placed: dict[str, Any], params: Params) -> str | None:
    """Run one data set unless its result is up to date; returns what is missing. Raises UserError."""
    if up_to_date(name, settings_digest(params), location.sha256):
        say(f"{name}: up to date; to run it again, delete {data_set_path(name)}")
        return None
    if not location.available:
        return how_to_get(name, data_set)
    # A slow import, not needed if every result is up to date.
    from stages.study.data_set import run as run_data_set

    say(f"{name}: {len(params.techniques)} entries, {len(params.train.seeds)} seeds")
    try:
        measured = run_data_set(name, placed, location.sha256)
    except UserError as error:
        if location.on_hub and "cannot be loaded" in str(error):
            return f"{how_to_get(name, data_set)}; {error}"
        raise
    write_json(data_set_path(name), measured.result)
    write_seconds(name, measured.seconds)
    say(f"{name}: {data_set_path(name)}")
    return None


def main(names: Sequence[str] = ()) -> None:
    settings = read_settings()
    missing: dict[str, str] = {}
    failed: dict[str, UserError] = {}
    results: dict[str, DataSetResult] = {}
    folder().mkdir(parents=True, exist_ok=True)
    for name, data_set in settings.data_sets.items():
        try:
            location = location_of(name, data_set)
            placed, params = with_place(content_of(settings, name), location.ingest, name)
            if not names or name in names:
                lacking = measure(name, data_set, location, placed, params)
                if lacking is not None:
                    missing[name] = lacking
                    say(f"{name}: missing: {lacking}")
            result = read_result(name, settings_digest(params))
        except UserError as error:
            # One data set must not stop the others.
            failed[name] = error
            say(f"{name}: error: {error}")
            continue
        if result is not None:
            results[name] = result
    if results:
        write_json(across_path(), across(settings, results, read_published(), missing).model_dump())
        say(f"{len(results)} of {len(settings.data_sets)} data sets: {across_path()}")
    else:
        say(f"no data set has a result; {across_path()} is not written")
    if failed:
        first, reason = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(settings.data_sets)} data sets failed; the first is {first}: {reason}")


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", help="data sets to run (default: all)")
    run(main, arguments.parse_args())
