"""What is at a path that somebody else wrote: a reader of a FIFO or a device would wait for ever."""

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
    """The kind of what a path leads to, through links; None where nothing is.

    Raises UserError for a link that leads nowhere, and for a path that no file can have or that may not be looked at.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise UserError(f"{path}: is a link to {path.readlink()}, which is not there; mend or remove it") from error
        return None
    except OSError as error:
        shown = str(path) if len(str(path)) <= LONGEST_SHOWN else f"{str(path)[:LONGEST_SHOWN]}..."
        raise UserError(f"{shown}: {error.strerror}; expected a file or folder that can be read") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r}: no file can have this name ({error})") from error


def regular_file(path: Path) -> bool:
    """Whether a file is at a path; raises UserError where something else is, such as a FIFO, a device or a folder."""
    return expect(path, stat.S_IFREG)


def real_folder(path: Path) -> bool:
    """Whether a folder is at a path; raises UserError where something else is."""
    return expect(path, stat.S_IFDIR)


def expect(path: Path, kind: int) -> bool:
    """Whether something is at a path; raises UserError for another kind of thing."""
    found = kind_of(path)
    if found not in (None, kind):
        raise UserError(f"{path}: is {KINDS.get(found or 0, 'no file')}; expected {KINDS[kind]}")
    return found is not None


def check_source(path: Path) -> None:
    """Raise UserError for what is neither a file nor a folder, which would be read without end; nothing may be there."""
    if kind_of(path) != stat.S_IFDIR:
        regular_file(path)


def check_folder(path: Path) -> bool:
    """Whether a folder is there; raises UserError where it, or anything in it, is neither a file nor a folder."""
    if not real_folder(path):
        return False
    for inside in sorted(path.rglob("*")):
        check_source(inside)
    return True


def open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read or write a file."""
    return bool(path.stat().st_mode & OTHERS)


def private_text(path: Path, setting: str) -> str:
    """The text of a file with secrets, which a setting names; raises UserError where it is missing or others may read it."""
    if not regular_file(path):
        raise UserError(f"{path}: no such file ({setting})")
    if open_to_others(path):
        raise UserError(f"{path}: others than its owner may read it ({setting}); run `chmod 600 {path}`")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error} ({setting})") from error
