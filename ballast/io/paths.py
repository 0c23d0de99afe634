"""Check untrusted paths before reading: a reader of a FIFO or a device would wait forever."""

from __future__ import annotations

import stat
from pathlib import Path

from ballast.exceptions import UserError

KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
LONGEST_SHOWN = 300
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def kind_of(path: Path) -> int | None:
    """The file type at a path, following links; None if nothing is there.

    Raises UserError for a dangling link, an invalid path, or one that cannot be accessed.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise UserError(f"{path}: is a link to {path.readlink()}, which does not exist; fix or remove it") from error
        return None
    except OSError as error:
        shown = str(path) if len(str(path)) <= LONGEST_SHOWN else f"{str(path)[:LONGEST_SHOWN]}..."
        raise UserError(f"{shown}: {error.strerror}; expected a readable file or folder") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r}: not a valid file name ({error})") from error


def regular_file(path: Path) -> bool:
    """Whether a regular file is at a path. Raises UserError for anything else, such as a FIFO, a device or a folder."""
    return expect(path, stat.S_IFREG)


def real_folder(path: Path) -> bool:
    """Whether a folder is at a path. Raises UserError for anything else."""
    return expect(path, stat.S_IFDIR)


def expect(path: Path, kind: int) -> bool:
    """Whether something of this file type is at a path. Raises UserError for another type."""
    actual = kind_of(path)
    if actual not in (None, kind):
        raise UserError(f"{path}: is {KINDS.get(actual or 0, 'no file')}; expected {KINDS[kind]}")
    return actual is not None


def check_source(path: Path) -> None:
    """Raise UserError if a path is neither a file nor a folder. It may be missing."""
    if kind_of(path) != stat.S_IFDIR:
        regular_file(path)


def check_folder(path: Path) -> bool:
    """Whether a folder exists. Raises UserError if anything in it is neither a file nor a folder."""
    if not real_folder(path):
        return False
    for inside in sorted(path.rglob("*")):
        check_source(inside)
    return True


def open_to_others(path: Path) -> bool:
    """Whether other users than its owner may read or write a file."""
    return bool(path.stat().st_mode & OTHERS)


def private_text(path: Path, setting: str) -> str:
    """The text of a file with secrets, named by a setting. Raises UserError if it is missing or other users may read it."""
    if not regular_file(path):
        raise UserError(f"{path}: no such file ({setting})")
    if open_to_others(path):
        raise UserError(f"{path}: other users may read it ({setting}); run `chmod 600 {path}`")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error} ({setting})") from error
