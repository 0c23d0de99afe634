"""Recover a checkout from killed commands before DVC starts: remove stale locks and restore damaged files.

DVC records readers and writers in `.dvc/tmp/rwlock`. It rewrites that file and `dvc.lock` in place, so a kill can leave them
empty or truncated. An entry of a dead process is only ignored until another process gets its number.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
# DVC's locks for editing the file above, and for reading or writing dvc.lock.
GUARD, REPOSITORY = TMP / "rwlock.lock", TMP / "lock"
GUARD_SECONDS = 20.0
POLL_SECONDS = 0.05
# DVC's settings in the checkout.
CONFIGS = (Path(".dvc/config"), Path(".dvc/config.local"))
# Names of files that DVC has not copied completely.
TEMPORARY = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")
SKIPPED = (".git", ".venv")

Locks = dict[str, Any]
Log = Callable[[str], object]


def recover(log: Log, root: Path = Path()) -> None:
    """Remove and restore what a killed command left in a checkout, and log a line about each kind of change.

    Files of living processes stay unchanged. Raises UserError if a decision of the user is needed.
    """
    if (hardlinks := uses_hardlink_locks(root)) and is_stale_lock(root / REPOSITORY) and not any(running_dvc(root)):
        raise UserError(stale_lock_message(root / REPOSITORY))
    if (root / RWLOCK).exists() and (line := clean_rwlock(root, hardlinks, log)):
        log(line)
        if count := remove_temporaries(root):
            log(f"{count} half-copied file{'s' * (count != 1)} of a killed dvc removed")
    # If a living dvc uses dvc.lock, DVC waits for it or reports it.
    with suppress(TimeoutError):
        for line in back_up_or_restore(root, lambda: guarded(root / REPOSITORY, hardlinks, root)):
            log(line)


def clean_rwlock(root: Path, hardlinks: bool, log: Log) -> str:
    """Remove DVC's list of readers and writers if it is unreadable, else the entries of dead processes.

    Returns a line that says what was done, or "".
    """
    path = root / RWLOCK
    if (locks := read_rwlock(path)) is not None and not dead_processes(locks, root, path):
        return ""
    try:
        with guarded(root / GUARD, hardlinks, root):
            # Read again: the previous holder of the guard may have rewritten the file.
            if (locks := read_rwlock(path)) is not None:
                return remove_dead_entries(locks, root, path)
        # What living processes write is unknown; they will fail when they end, because they cannot read the list either.
        if any(running_dvc(root)):
            log(f"{path}: a killed dvc left it unreadable; waiting for the dvc that still runs in this checkout")
        while any(running_dvc(root)):
            time.sleep(POLL_SECONDS)
        with guarded(root / GUARD, hardlinks, root):
            if read_rwlock(path) is None:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except TimeoutError as error:
        raise UserError(f"{root / GUARD}: another dvc has held it for {GUARD_SECONDS:.0f} s; end it, then try again") from error
    return f"{path} removed: a killed dvc left it unreadable"


def read_rwlock(path: Path) -> Locks | None:
    """DVC's readers and writers by path, {} if there is no file, or None if the file is invalid."""
    if not path.exists():
        return {}
    # Reading a FIFO would block.
    if not path.is_file():
        return None
    try:
        locks = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError):
        return None
    return locks if is_valid(locks) else None


def is_valid(locks: Any) -> bool:
    """Whether JSON content has the form of DVC's list: {read: {path: [entry]}, write: {path: entry}}."""

    def is_entry(entry: object) -> bool:
        return (
            isinstance(entry, dict)
            and set(entry) == {"pid", "cmd"}
            and isinstance(entry["pid"], int)
            and isinstance(entry["cmd"], str)
        )

    if not isinstance(locks, dict) or not set(locks) <= {"read", "write"}:
        return False
    if not all(isinstance(by_path, dict) for by_path in locks.values()):
        return False
    readers = locks.get("read", {}).values()
    return all(isinstance(entries, list) and all(map(is_entry, entries)) for entries in readers) and all(
        map(is_entry, locks.get("write", {}).values())
    )


def key_of(entry: Mapping[str, Any]) -> tuple[int, str]:
    """The process of an entry, by number and command."""
    return entry["pid"], entry["cmd"]


def dead_processes(locks: Locks, root: Path, path: Path) -> set[tuple[int, str]]:
    """The processes that have entries and do not belong to a living dvc of this checkout, by number and command."""
    entries = [*locks.get("write", {}).values(), *(entry for readers in locks.get("read", {}).values() for entry in readers)]
    distinct = {key_of(entry): entry for entry in entries}
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return set()
    return {key for key, entry in distinct.items() if not is_alive(entry, root, written)}


def remove_dead_entries(locks: Locks, root: Path, path: Path) -> str:
    """Write the list without entries of dead processes; returns a line that says what was done, or ""."""
    if not (dead := dead_processes(locks, root, path)):
        return ""
    alive = {
        "write": {name: entry for name, entry in locks.get("write", {}).items() if key_of(entry) not in dead},
        "read": {
            name: left
            for name, readers in locks.get("read", {}).items()
            if (left := [entry for entry in readers if key_of(entry) not in dead])
        },
    }
    # Only the holder of the guard writes this file, so one temporary name is enough.
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(alive), encoding="utf-8")
    temporary.replace(path)
    numbers = ", ".join(str(number) for number, _ in sorted(dead))
    return f"{path}: entries of process {numbers} removed, which is not a running dvc of this checkout"


@contextmanager
def guarded(path: Path, hardlinks: bool, root: Path) -> Iterator[None]:
    """Hold one of DVC's locks as DVC does; raises TimeoutError, and UserError if the lock may be stale."""
    if hardlinks:
        # Slow import, needed only for locks on a network file system.
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
    # A new clone lacks the folder.
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + GUARD_SECONDS
    while True:
        try:
            lock = LockFile(str(path))
            break
        except LockError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(str(path)) from error
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.close()


def is_stale_lock(path: Path) -> bool:
    """Whether a lock is older than the time that DVC waits for one."""
    try:
        return time.time() - path.stat().st_ctime > GUARD_SECONDS
    except FileNotFoundError:
        return False


def stale_lock_message(path: Path) -> str:
    """The error message for a lock that no process of this machine holds."""
    return (
        f"{path}: held, but no dvc runs here; with core.hardlink_lock, a killed dvc leaves its lock. If no dvc runs in this"
        " checkout on another machine either, delete it"
    )


def uses_hardlink_locks(root: Path) -> bool:
    """Whether DVC is configured to lock by hard links, for network file systems."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    outside = [
        Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR", "/etc/xdg/dvc")) / "config",
        Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR", home / "dvc")) / "config",
    ]
    config = ConfigParser(strict=False, interpolation=None)
    with suppress(ConfigError, ValueError, OSError):
        config.read([*outside, *(root / path for path in CONFIGS)], encoding="utf-8")
        return config.getboolean("core", "hardlink_lock", fallback=False)
    return False


def remove_temporaries(root: Path) -> int:
    """Remove half-copied files of a killed dvc and return their number.

    Removes none while any dvc runs on this machine, because checkouts may share a cache.
    """
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
    """Remove the index lock of a killed git in a clone that only this project uses."""
    lock = root / ".git/index.lock"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name().startswith("git") and checkout_of(Path(process.cwd())) == root.resolve():
                return
    lock.unlink(missing_ok=True)


def main() -> None:
    recover(lambda line: print(f"recovery: {line}", file=sys.stderr))


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
