"""Read and write the pipeline's files: they are written under a temporary name, then renamed, so no file is ever incomplete."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from stages.store.remedies import damaged, missing

# The limit of file systems, and the limit for windows, entries and keys, from which longer names are made.
LONGEST_FILE_NAME, LONGEST_NAME = 255, 200
# The ending of a temporary name: eight characters, as in earlier versions.
PARTIAL = re.compile(r"[0-9a-z_]{8}\.partial")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file or folder, and hold it; a killed process releases its lock.

    Removes what a killed process left half written beside `path`. Raises UserError for a name that is too long.
    """
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{short_name(path.name)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_partial(path)
        yield


def check_name(path: Path) -> None:
    """Raise UserError for a file name that is too long."""
    if (size := len(os.fsencode(path.name))) > LONGEST_FILE_NAME:
        raise UserError(
            f"{path.parent}/{path.name[:40]}...: the name has {size} bytes, the limit is {LONGEST_FILE_NAME}; shorten it"
        )


def short_name(name: str) -> str:
    """A name that leaves room for a prefix and suffix: long names are replaced by their sha256."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def remove_partial(path: Path) -> None:
    """Remove what killed processes left half written beside a path; a living process holds a lock on its files."""
    beginning = f".{short_name(path.name)}."
    for left in path.parent.iterdir() if path.parent.is_dir() else ():
        if left.name.startswith(beginning) and PARTIAL.fullmatch(left.name.removeprefix(beginning)):
            with suppress(OSError):
                handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                finally:
                    os.close(handle)


def partial(path: Path) -> Path:
    """A unique temporary name beside a path."""
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{short_name(path.name)}.{secrets.token_hex(4)}.partial"


def made_beside(path: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """A temporary file or folder beside a path, made by `make`, and the descriptor that locks it."""
    while True:
        temporary = partial(path)
        make(temporary)
        # Before it is locked, another process may remove it as abandoned.
        with suppress(FileNotFoundError):
            handle = os.open(temporary, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return temporary, handle
            os.close(handle)


@contextmanager
def partial_beside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary file or folder beside a path; those of killed processes are removed first."""
    check_name(path)
    remove_partial(path)
    temporary, handle = made_beside(path, make)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it replaces `path` only if the block succeeds."""
    with partial_beside(path, created) as temporary:
        # With what the umask allows, and not what the library that writes it does.
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)


def created(path: Path) -> int:
    """Create an empty file; returns its permissions."""
    with path.open("x") as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write to; it replaces `path` only if the block succeeds."""
    with partial_beside(path, Path.mkdir) as temporary:
        written = temporary / "new"
        written.mkdir()
        yield written
        as_new(written)
        if path.exists():
            path.rename(temporary / "old")
        written.rename(path)


def copied(path: Path, target: Path) -> None:
    """Copy a file's bytes, and make the folders that are missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def as_new(folder: Path) -> None:
    """Give the files of a folder the permissions of new files; some libraries make them private."""
    probe = folder / f".{secrets.token_hex(4)}.partial"
    mode = created(probe)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys and its digest; equal content gives equal bytes."""
    write_plain_json(path, digest.with_digest(content))


def write_plain_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys without a digest, for external readers, or if another file holds the digest."""
    with replaced(path) as temporary:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object after checking its digest; raises UserError with the command that restores the file."""
    regular_file(path)
    try:
        return digest.parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise missing(path) from error
    except digest.DigestError as error:
        raise damaged(path, error) from error
    except ValueError as error:
        raise damaged(path, f"not valid JSON ({error})") from error
