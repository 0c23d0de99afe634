"""Add digests to files in production/ that an earlier version wrote without them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.production.deployed import MANIFEST
from stages.store.checked import table_writer
from stages.store.files import locked, replaced, write_json
from stages.store.project import PROJECT

ARROW_SCHEMA = b"ARROW:schema"


def files_without_digest() -> dict[Path, Callable[[Path], None]]:
    """The files in production/ without a digest, and the function that adds it; raises UserError for an unreadable file."""
    tables = [
        path
        for path in (
            *sorted(PROJECT.scored.glob("*.parquet")),
            PROJECT.labelled,
            *sorted(PROJECT.production.glob("replay/*.parquet")),
        )
        if path.is_file()
    ]
    objects = [
        path
        for path in (PROJECT.current, *sorted(PROJECT.watch.glob("*.json")), *sorted(PROJECT.retrain.glob("*/*.json")))
        if path.is_file()
    ]
    adopters: dict[Path, Callable[[Path], None]] = {
        path: adopt_object for path in objects if digest.KEY not in read_unchecked(path)
    }
    for path in tables:
        with path.open("rb") as file:
            if digest.position(file) is None:
                adopters[path] = adopt_table
    return adopters


def read_unchecked(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file; raises UserError."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a JSON object ({error}); no file was changed, remove this one first") from error


def adopt_object(path: Path) -> None:
    """Rewrite a JSON object with its digest; `current.json` also gets the sha256 of each version's manifest."""
    content = read_unchecked(path)
    if path == PROJECT.current:
        for entry in content.get("history", []):
            manifest = PROJECT.deployed / str(entry["version"]) / MANIFEST
            if "sha256" not in entry and manifest.is_file():
                entry["sha256"] = file_sha256(manifest)
    write_json(path, content)


def adopt_table(path: Path) -> None:
    """Rewrite a table with its digest, one row group at a time."""
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table, replaced(path) as temporary:
            metadata = {key: value for key, value in (table.metadata.metadata or {}).items() if key != ARROW_SCHEMA}
            schema = table.schema_arrow.remove_metadata()
            with table_writer(temporary, schema, compression="zstd", store_schema=False) as writer:
                for number in range(table.num_row_groups):
                    writer.write_table(table.read_row_group(number).replace_schema_metadata(None))
                writer.add_key_value_metadata(metadata)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be rewritten with a digest: {' '.join(str(error).split())[:200]}") from error


def adopt_all() -> None:
    """Print the files without a digest, then add it to each of them."""
    adopters = files_without_digest()
    for path in adopters:
        print(path)
    for path, adopt in adopters.items():
        with locked(path):
            adopt(path)
    print(f"verify: {len(adopters):,} files got a digest, their content is unchanged", file=sys.stderr)
