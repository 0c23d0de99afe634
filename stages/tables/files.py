"""The files of a source: a file, a folder, a pattern or a URL, and local copies of remote files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.implementations.local import LocalFileSystem

from ballast.exceptions import UserError, is_transient, user_error
from ballast.io.paths import check_source
from ballast.io.urls import file_name, public_url
from stages.store.places import error_text, file_system, is_url
from stages.tables.dialect import format_of_name

PATTERN = frozenset("*?[")


def files_at(source: str, setting: str = "") -> tuple[Any, dict[str, str]]:
    """The file system of a path, pattern or URL, and its files as {name to show: path}, in the order of their names.

    A name is a pattern only if no file has it. In a folder, files whose names begin with a dot or an underscore are skipped.
    Raises UserError for a source without files, and for a FIFO or device, which reading would never end.
    """
    shown, where = public_url(source), f" ({setting})" if setting else ""
    if not is_url(source):
        check_source(Path(source))
    try:
        system, root = file_system(source)
        system.invalidate_cache()
        # Over HTTP, only the name distinguishes a file from a page with links.
        named = urlsplit(source).scheme in ("http", "https") and format_of_name(source) is not None
        files = {shown: root} if named or system.isfile(root) else files_of(system, shown, root)
        if not files and PATTERN & set(root):
            files = matching(system, shown, root)
        if not files:
            # If the storage does not answer, this raises the reason.
            system.info(root)
    except UserError:
        raise
    # Each kind of storage has its own errors.
    except Exception as error:
        if not isinstance(error, FileNotFoundError) or is_transient(error):
            raise user_error(f"{shown}: cannot be read: {error_text(error)}{where}", error) from error
        files = {}
    if not files:
        if not is_url(source) and Path(source).is_dir():
            raise UserError(
                f"{shown}: is a folder without files to read{where}; expected a file or a folder with files, whose names begin"
                " with neither a dot nor an underscore"
            )
        raise UserError(f"{shown}: no such file, and no folder with files in it{where}")
    for path in files.values():
        if isinstance(system, LocalFileSystem):
            check_source(Path(path))
    return system, files


def files_of(system: Any, source: str, root: str) -> dict[str, str]:
    """The files of a folder without hidden ones, as {name to show: path}."""
    root = root.rstrip("/")
    inside = {path.removeprefix(root).lstrip("/"): path for path in sorted(system.find(root))}
    return {
        f"{source.rstrip('/')}/{name}": path
        for name, path in inside.items()
        if name and not name.endswith("/") and not any(part.startswith((".", "_")) for part in name.split("/"))
    }


def matching(system: Any, source: str, root: str) -> dict[str, str]:
    """The files of a pattern such as data/part-*.csv, as {name to show: path}."""
    fixed = root[: min(root.index(character) for character in PATTERN & set(root))].rpartition("/")[0]
    begin = source[: min(source.index(character) for character in PATTERN & set(source))].rpartition("/")[0]
    paths = sorted(str(path) for path in system.glob(root) if system.isfile(path))
    return {f"{begin}/{name}" if begin else name: path for path in paths for name in [path.removeprefix(fixed).lstrip("/")]}


@contextmanager
def local_copy(system: Any, path: str, shown: str) -> Iterator[Path]:
    """A file of a file system as a local file; raises UserError if it cannot be read."""
    if isinstance(system, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / file_name(path)
        try:
            with system.open(path, "rb") as remote, local.open("wb") as file:
                shutil.copyfileobj(remote, file)
        except UserError:
            raise
        # Each kind of storage has its own errors.
        except Exception as error:
            raise user_error(f"{shown}: cannot be read: {error_text(error)}", error) from error
        yield local
