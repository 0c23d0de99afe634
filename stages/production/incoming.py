"""Read production messages row by row from local or remote files.

`stages.store.tables` reads training data as a whole; a malformed row is an error there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from fsspec.implementations.local import LocalFileSystem

from ballast.exceptions import UserError, is_transient, user_error
from ballast.io.paths import check_source
from ballast.io.urls import file_path, public_url
from stages.production.rows import BLOCK_BYTES, Columns, Row, read_csv, read_jsonl, read_parquet
from stages.store.places import error_text, file_system, is_url
from stages.store.tables import FORMATS


def read_rows(source: str, columns: Columns) -> Iterator[Row]:
    """The rows of a file, or of all files of a folder in the order of their names, at a path or URL.

    Files whose names begin with a dot or an underscore are skipped. Raises UserError for a source that is missing, has no
    file, cannot be read or lacks a column.
    """
    system, files = files_at(source)
    for name, path in files.items():
        yield from read_rows_of_file(system, name, path, columns)


def files_at(source: str) -> tuple[Any, dict[str, str]]:
    """The file system of a path or URL, and its files as {name to show: path}.

    Raises UserError for a source without files, for an unknown format, and for a FIFO or device, which reading would never end.
    """
    shown = public_url(source)
    if not is_url(source):
        check_source(Path(source))
    try:
        system, root = file_system(source)
        system.invalidate_cache()
        # Over HTTP, only the name distinguishes a file from a page with links.
        named = urlsplit(source).scheme in ("http", "https") and ending_of(source) in FORMATS
        files = {shown: root} if named or system.isfile(root) else files_of(system, shown, root)
        if not files:
            # If the storage does not answer, this raises the reason.
            system.info(root)
    except UserError:
        raise
    # Each kind of storage has its own errors.
    except Exception as error:
        if not isinstance(error, FileNotFoundError) or is_transient(error):
            raise user_error(f"{shown}: cannot be read: {error_text(error)}", error) from error
        files = {}
    if not files:
        raise UserError(f"{shown}: no such file, and no folder with files in it")
    for name, path in files.items():
        format_of_name(name)
        if isinstance(system, LocalFileSystem):
            check_source(Path(path))
    return system, files


def read_rows_of_file(system: Any, name: str, path: str, columns: Columns) -> Iterator[Row]:
    """The rows of a file of a file system; `name` is what errors show. Raises UserError."""
    readers: dict[str, Callable[[str, Any, Columns], Iterator[Row]]] = {
        "csv": partial(read_csv, delimiter=","),
        "tsv": partial(read_csv, delimiter="\t"),
        "jsonl": read_jsonl,
        "parquet": read_parquet,
    }
    try:
        with system.open(path, "rb", block_size=BLOCK_BYTES) as file:
            yield from readers[format_of_name(name)](name, file, columns)
    except UserError:
        raise
    except Exception as error:
        raise user_error(f"{name}: cannot be read: {error_text(error)}", error) from error


def files_of(system: Any, source: str, root: str) -> dict[str, str]:
    """The files of a folder without hidden ones, as {name to show: path}."""
    root = root.rstrip("/")
    inside = {path.removeprefix(root).lstrip("/"): path for path in sorted(system.find(root))}
    return {
        f"{source.rstrip('/')}/{name}": path
        for name, path in inside.items()
        if name and not name.endswith("/") and not any(part.startswith((".", "_")) for part in name.split("/"))
    }


def ending_of(name: str) -> str:
    """The extension of a path or URL, in lower case."""
    return PurePosixPath(file_path(name)).suffix.lower()


def format_of_name(name: str) -> str:
    """The format of a file by its extension; raises UserError."""
    endings = [PurePosixPath(path).suffix.lower() for path in (name, file_path(name))]
    formats = [FORMATS[ending] for ending in endings if ending in FORMATS]
    if not formats:
        raise UserError(f"{name}: unknown format {endings[-1]!r}; expected a name that ends in {', '.join(FORMATS)}")
    return formats[0]
