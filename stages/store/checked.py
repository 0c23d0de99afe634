"""Tables and arrays with a digest, which is written with the file and checked whenever the file is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from stages.store.remedies import damaged, missing, remedy

PLACE = {digest.KEY: digest.ZEROS.decode()}
# Holds the digests of the other files of a folder, which have no place for one.
FILES = "files.json"


@contextmanager
def opened(path: Path, *, required: bool = True) -> Iterator[IO[bytes]]:
    """Open a file after checking its digest.

    required : whether a file without a digest is an error; files from elsewhere have none.

    Raises UserError with the command that restores the file, also for errors while it is read.
    """
    regular_file(path)
    try:
        with path.open("rb") as file:
            digest.check(file, required=required)
            yield file
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, ValueError, KeyError, BadZipFile, pa.ArrowException) as error:
        raise damaged(path, error) from error


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError if a parquet file lacks a column, as a file of an earlier version may."""
    present = parquet.read_schema(path).names
    for name in columns:
        if name not in present:
            raise ValueError(f"no column {name!r}")


def read_table(path: Path, columns: Sequence[str] | None = None, filters: Any = None, *, required: bool = True) -> pa.Table:
    """Read columns of a parquet file, of all or of some rows; raises UserError as `opened` does."""
    with opened(path, required=required):
        if required:
            check_columns(path, columns or ())
        table = parquet.read_table(
            path, columns=None if columns is None else list(columns), filters=filters, page_checksum_verification=True
        )
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({key: value for key, value in metadata.items() if key != digest.KEY.encode()})


def read_frame(path: Path, columns: Sequence[str] | None = None, *, required: bool = True) -> pd.DataFrame:
    """Read columns of a parquet file into a data frame; raises UserError as `opened` does."""
    with opened(path, required=required):
        if required:
            check_columns(path, columns or ())
        return pd.read_parquet(
            path, columns=None if columns is None else list(columns), engine="pyarrow", page_checksum_verification=True
        )


@contextmanager
def table_writer(path: Path, schema: pa.Schema, **options: Any) -> Iterator[parquet.ParquetWriter]:
    """A writer of a parquet file with page checksums; the end of the block adds the digest."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != digest.KEY.encode()}
    with parquet.ParquetWriter(path, schema.with_metadata(metadata or None), write_page_checksum=True, **options) as writer:
        yield writer
        writer.add_key_value_metadata(PLACE)
    with path.open("r+b") as file:
        digest.seal(file)


def write_table(path: Path, table: pa.Table | pd.DataFrame, **options: Any) -> None:
    """Write a table as parquet; equal content gives equal bytes."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with table_writer(path, table.schema, **options) as writer:
        writer.write_table(table)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as npz; equal content gives equal bytes."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))
    with ZipFile(path, "a") as archive:
        archive.comment = digest.IN_ZIP + digest.ZEROS
    with path.open("r+b") as file:
        digest.seal(file)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file by name; raises UserError as `opened` does."""
    with opened(path) as file, np.load(file, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}


def read_pinned(path: Path, sha256: str) -> bytes:
    """Read a file with the sha256 that another file holds; raises UserError if the file is missing or differs."""
    regular_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(path, "its sha256 is wrong")
    return content


@contextmanager
def of_model(folder: Path) -> Iterator[None]:
    """Add the command that restores a model's folder to the UserErrors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}: {remedy(folder)}") from error
