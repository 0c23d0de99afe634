"""What a killed command leaves that blocks or spoils later ones, mended before DVC starts.

DVC notes in `.dvc/tmp/rwlock` who reads and writes what, and rewrites that file and `dvc.lock` in place: a kill in between
leaves them empty or cut off. An entry of a process that is gone is forgotten only until another process has its number.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from zc.lockfile import LockError, LockFile  # type: ignore[import-untyped]

from ballast.cli import parser, run
from ballast.exceptions import UserError
from flows.recovery.dvc_processes import checkout_of, is_alive, running_dvc
from flows.recovery.lock_backup import back_up_or_restore

TMP = Path(".dvc/tmp")
RWLOCK = TMP / "rwlock"
# DVC holds them while it edits the file above, and while it reads or writes dvc.lock.
GUARD, REPOSITORY = TMP / "rwlock.lock", TMP / "lock"
GUARD_SECONDS = 20.0
ASK_SECONDS = 0.05
# Where DVC looks for its settings beside the checkout's own.
CONFIGS = (Path(".dvc/config"), Path(".dvc/config.local"))
# The names that DVC gives to what it copies, before it renames them.
TEMPORARY = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")
SKIPPED = (".git", ".venv")

Locks = dict[str, Any]


def recover(tell: Callable[[str], object], root: Path = Path()) -> None:
    """Remove and restore what a killed command left in a checkout, and tell of each kind of thing in a line.

    Nothing of a living process is touched. Raises UserError for what a person must decide.
    """
    if (hardlinks := hardlinked(root)) and is_stale_lock(root / REPOSITORY) and not any(running_dvc(root)):
        raise UserError(stale_lock_message(root / REPOSITORY))
    if (root / RWLOCK).exists() and (line := mend_rwlock(root, hardlinks, tell)):
        tell(line)
        if count := remove_temporaries(root):
            tell(f"{count} half-copied file{'s' * (count != 1)} of a killed dvc removed")
    # Where a living dvc is at dvc.lock, DVC waits for it, or says so.
    with suppress(TimeoutError):
        for line in back_up_or_restore(root, lambda: guarded(root / REPOSITORY, hardlinks, root)):
            tell(line)


def mend_rwlock(root: Path, hardlinks: bool, tell: Callable[[str], object]) -> str:
    """Remove DVC's list of readers and writers where it is unreadable, else the entries of who is gone: what was done."""
    path = root / RWLOCK
    if (found := entries(path)) is not None and not stale(found, root, path):
        return ""
    try:
        with guarded(root / GUARD, hardlinks, root):
            # Once more, for whoever had the guard may just have rewritten it.
            if (found := entries(path)) is not None:
                return remove_entries(found, root, path)
        # Of those who live nobody knows what they write; they fail at their ends, for they cannot read the list either.
        if any(running_dvc(root)):
            tell(f"{path}: unreadable, as a killed dvc left it; waiting for the dvc that still runs in this checkout")
        while any(running_dvc(root)):
            time.sleep(ASK_SECONDS)
        with guarded(root / GUARD, hardlinks, root):
            if entries(path) is None:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except TimeoutError as error:
        raise UserError(f"{root / GUARD}: another dvc has held it for {GUARD_SECONDS:.0f} s; end it, then try again") from error
    return f"{path} removed: a dvc that was killed left it unreadable"


def entries(path: Path) -> Locks | None:
    """Who reads and writes what, as DVC noted it; None where the file is not what DVC writes."""
    if not path.exists():
        return {}
    # A FIFO would be read for ever.
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError):
        return None

    def named(of: object) -> bool:
        return isinstance(of, dict) and set(of) == {"pid", "cmd"} and isinstance(of["pid"], int) and isinstance(of["cmd"], str)

    if (
        not isinstance(found, dict)
        or not set(found) <= {"read", "write"}
        or not all(isinstance(x, dict) for x in found.values())
    ):
        return None
    lists = all(isinstance(readers, list) and all(map(named, readers)) for readers in found.get("read", {}).values())
    return found if lists and all(map(named, found.get("write", {}).values())) else None


def stale(found: Locks, root: Path, path: Path) -> set[tuple[int, str]]:
    """The processes, by number and command, that have entries and are no living dvc of this checkout."""
    every = [*found.get("write", {}).values(), *(each for readers in found.get("read", {}).values() for each in readers)]
    distinct = {(each["pid"], each["cmd"]): each for each in every}
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return set()
    return {key for key, each in distinct.items() if not is_alive(each, root, written)}


def remove_entries(found: Locks, root: Path, path: Path) -> str:
    """Write the list without those who are gone: what was done."""
    if not (gone := stale(found, root, path)):
        return ""
    kept = {
        "write": {name: each for name, each in found.get("write", {}).items() if (each["pid"], each["cmd"]) not in gone},
        "read": {
            name: left
            for name, readers in found.get("read", {}).items()
            if (left := [each for each in readers if (each["pid"], each["cmd"]) not in gone])
        },
    }
    # Only who holds the guard writes here, so that the name may be the same each time.
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(kept), encoding="utf-8")
    temporary.replace(path)
    numbers = ", ".join(str(number) for number, _ in sorted(gone))
    return f"{path}: entries of process {numbers} removed, which is no running dvc of this checkout"


@contextmanager
def guarded(path: Path, hardlinks: bool, root: Path) -> Iterator[None]:
    """Hold a lock of DVC as DVC does; raises TimeoutError, and UserError where it may be one that is_stale_lock its process."""
    if hardlinks:
        # Slow import, needed only where DVC keeps its locks on a network file system.
        from dvc.lock import LockError as DvcLockError
        from dvc.lock import make_lock

        try:
            with make_lock(str(path), tmp_dir=str(path.parent), hardlink_lock=True):
                yield
        except DvcLockError as error:
            if any(running_dvc(root)):
                raise TimeoutError(str(path)) from error
            raise UserError(stale_lock_message(path)) from error
        return
    # A clone in which DVC has not run yet lacks the folder.
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + GUARD_SECONDS
    while True:
        try:
            lock = LockFile(str(path))
            break
        except LockError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(str(path)) from error
            time.sleep(ASK_SECONDS)
    try:
        yield
    finally:
        lock.close()


def is_stale_lock(path: Path) -> bool:
    """Whether a lock has been there for longer than DVC waits for one."""
    try:
        return time.time() - path.stat().st_ctime > GUARD_SECONDS
    except FileNotFoundError:
        return False


def stale_lock_message(path: Path) -> str:
    """What to do about a lock that nobody on this machine holds."""
    return (
        f"{path}: held, but no dvc runs here; with core.hardlink_lock a killed dvc leaves its lock. When none runs in this"
        " checkout on another machine either, delete it"
    )


def hardlinked(root: Path) -> bool:
    """Whether DVC is told to lock by hard links, as network file systems need it."""
    beside = [Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR", "/etc/xdg/dvc")) / "config"]
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    beside.append(Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR", home / "dvc")) / "config")
    found = ConfigParser(strict=False, interpolation=None)
    with suppress(ConfigError, ValueError, OSError):
        found.read([*beside, *(root / each for each in CONFIGS)], encoding="utf-8")
        return found.getboolean("core", "hardlink_lock", fallback=False)
    return False


def remove_temporaries(root: Path) -> int:
    """Remove what a killed dvc was copying, unless a dvc runs somewhere on this machine: checkouts may share a cache."""
    if any(running_dvc()):
        return 0
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in filter(TEMPORARY.fullmatch, files):
            (Path(folder) / name).unlink(missing_ok=True)
            count += 1
    return count


def remove_index_lock(root: Path) -> None:
    """Remove the lock that a killed git left on the index of a clone that nobody but us works in."""
    lock = root / ".git/index.lock"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name().startswith("git") and checkout_of(Path(process.cwd())) == root.resolve():
                return
    lock.unlink(missing_ok=True)


def main() -> None:
    recover(lambda line: print(f"leftovers: {line}", file=sys.stderr))


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
