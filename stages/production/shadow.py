"""Score a window with a second version, the shadow, to compare its decisions with those of the version that decides.

Reads the scored window and writes `production/shadow/<window>.parquet`, with the same columns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
from pyarrow import parquet

from ballast.exceptions import UserError, suggestion
from ballast.io.printable import counted
from stages.production.deployed import MANIFEST, Version, read_version
from stages.production.rows import Row
from stages.production.scoring import disk_full_as_user_error, schema, scored_table
from stages.production.versions import version_names
from stages.store.checked import opened, read_table, table_writer
from stages.store.files import locked, replaced
from stages.store.params import Params
from stages.store.places import error_text
from stages.store.project import PROJECT
from stages.store.remedies import damaged, missing


def path_of(window: str) -> Path:
    """The scores of a window's shadow."""
    return PROJECT.shadow / f"{window}.parquet"


def shadow_for(params: Params, version: Version) -> str | None:
    """The name of the shadow of a version; None without one, or if the setting names the version itself.

    Raises UserError for a version that does not exist.
    """
    name = params.production.shadow
    if name is None:
        return None
    if not (PROJECT.deployed / name / MANIFEST).is_file():
        raise UserError(
            f"{PROJECT.params}: production.shadow: {PROJECT.deployed} has no version {name}:"
            f" {suggestion(name, version_names())}. `python -m flows.promote --shadow` stores the selected model as a version"
        )
    if name == version.name:
        print(
            f"score: version {name} decides itself, so it is no shadow; remove production.shadow from {PROJECT.params}",
            file=sys.stderr,
        )
        return None
    return name


def read_shadow(name: str, version: Version) -> Version:
    """The version of a shadow; raises UserError if it is damaged, or has other labels than the version that decides."""
    shadow = read_version(name)
    if shadow.labels != version.labels:
        ours, theirs = (", ".join(labels) for labels in (shadow.labels, version.labels))
        raise UserError(f"version {name} has the labels {ours}, version {version.name} has {theirs}; they cannot be compared")
    return shadow


def score_shadow(window: str, version: Version, name: str | None) -> None:
    """Score the messages of a scored window with its shadow, if there is one.

    Nothing that is wrong with the shadow is an error, because the scores of the deployed version are complete.
    """
    path = path_of(window)
    if name is None:
        path.unlink(missing_ok=True)
        return
    try:
        with disk_full_as_user_error(path), locked(path):
            count, differ = write_scores(path, PROJECT.scored / path.name, version, read_shadow(name, version))
    # Each kind of model has its own errors.
    except Exception as error:
        # Earlier scores may be of other messages.
        path.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error_text(error)}"
        print(f"score: {window}: the shadow {name} could not score the messages: {reason}", file=sys.stderr)
    else:
        print(
            f"score: {window}: the shadow {name} decides {differ:,} of {counted(count, 'message')} differently", file=sys.stderr
        )


def write_scores(path: Path, scored: Path, version: Version, shadow: Version) -> tuple[int, int]:
    """Write the scores of a shadow; returns the number of messages, and of those that it decides differently."""
    model = shadow.load()
    count = differ = 0
    with (
        opened(scored) as file,
        parquet.ParquetFile(file, page_checksum_verification=True) as table,
        replaced(path) as temporary,
        table_writer(temporary, schema(shadow), compression="zstd", store_schema=False) as writer,
    ):
        # Written in row groups that fit into memory.
        for number in range(table.num_row_groups):
            part = table.read_row_group(number, ["id", "text", "label"])
            pairs = zip(part["id"].to_pylist(), part["text"].to_pylist(), strict=True)
            rows = [Row(str(scored), at, id_, text) for at, (id_, text) in enumerate(pairs, 1)]
            own = scored_table(rows, model, shadow)
            writer.write_table(own)
            count += len(rows)
            differ += int(pc.sum(pc.not_equal(own["label"], part["label"])).as_py() or 0)
        about = {"window": path.stem, "scored": count, "model": shadow.name, "sha256": shadow.sha256, "beside": version.sha256}
        writer.add_key_value_metadata({"ballast": json.dumps(about, sort_keys=True)})
    return count, differ


def read_scores(window: str, table: pd.DataFrame, version: Version, shadow: Version) -> pd.DataFrame:
    """The scores of a window's shadow, in the order of the messages of the window.

    table : the window as the other version scored it.

    Raises UserError if the file is missing or damaged, or holds the scores of other messages or of another version.
    """
    path = path_of(window)
    if not path.is_file():
        raise missing(path)
    table_of_shadow = read_table(path)
    about = json.loads((table_of_shadow.schema.metadata or {}).get(b"ballast", b"{}"))
    if (about.get("sha256"), about.get("beside")) != (shadow.sha256, version.sha256):
        raise damaged(path, f"not the scores of version {shadow.name} beside {version.name}")
    scores: pd.DataFrame = table_of_shadow.to_pandas()
    if not scores[["id", "text"]].equals(table[["id", "text"]]):
        raise damaged(path, "holds other messages than the scored window")
    return scores
