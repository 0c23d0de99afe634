"""Which commit a clone is at, what in it no commit has, and how it comes to another one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ballast.exceptions import UserError
from flows.recovery.cleanup import remove_index_lock

# DVC writes it wherever it works; what it says can be had again.
WRITTEN_BY_DVC = "dvc.lock"
# How often one who waits for a clone looks whether it is free, or where it should be.
ASK_SECONDS = 0.5


def run_git(root: Path, *arguments: str) -> str:
    """What a git command prints in a clone; raises UserError when it fails."""
    # A question at a terminal would wait for an answer, while nobody else gets at the clone. A status that is killed while it
    # refreshes the index would leave a lock on it.
    env = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *arguments], cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout.strip("\n")


def head(root: Path) -> str:
    """The commit that is checked out; raises UserError where there is none."""
    return run_git(root, "rev-parse", "--verify", "HEAD^{commit}")


def uncommitted(root: Path, *paths: str, untracked: bool = False) -> list[str]:
    """The files, of all or of some paths, that differ from the commit; new ones too where asked for."""
    listed = run_git(
        root, "status", "--porcelain", "-z", "--no-renames", f"--untracked-files={'all' if untracked else 'no'}", "--", *paths
    )
    return [line[3:] for line in listed.split("\0") if line]


@contextmanager
def at_commit(root: Path, commit: str, data: str = "") -> Iterator[None]:
    """Keep a clone at a commit, fetched and checked out where need be, for as many as want the same one and the same data.

    Others wait; they would put their files in the place of those that a training reads.

    Raises UserError that names both commits when it cannot be had or when work in the clone would be lost.
    """
    lock = root / ".dvc/tmp/commit.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        while True:
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(0)
            if head(root) == commit and file.read() == data:
                break
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # To wait in the lock's queue would be to wait also for one who wants the same and came first.
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(ASK_SECONDS)
                continue
            remove_index_lock(root)
            check_out(root, commit)
            file.truncate(0)
            file.write(data)
            file.flush()
        yield


def check_out(root: Path, commit: str) -> None:
    """Bring a clone to a commit, from its own history or from its origin; raises UserError and then changes no work in it."""
    if (found := head(root)) == commit:
        return
    where = f"the clone is at commit {found[:12]}, the pipeline at {commit[:12]}"
    if changed := [name for name in uncommitted(root) if name != WRITTEN_BY_DVC]:
        raise UserError(f"{where}, and {changed[0]} was changed here; commit or restore it")
    if not has(root, commit):
        try:
            run_git(root, "fetch", "--quiet", "--all")
            if not has(root, commit):
                run_git(root, "fetch", "--quiet", "origin", commit)
        except UserError as error:
            raise UserError(f"{where}, which cannot be fetched ({error})") from error
        if not has(root, commit):
            raise UserError(f"{where}, which was not among what it fetched; push it")
    if run_git(root, "ls-files", WRITTEN_BY_DVC):
        run_git(root, "checkout", "--quiet", "--", WRITTEN_BY_DVC)
    else:
        (root / WRITTEN_BY_DVC).unlink(missing_ok=True)
    # Not by force: a new file that is in the way is somebody's work as well.
    run_git(root, "checkout", "--quiet", "--detach", commit)


def has(root: Path, commit: str) -> bool:
    """Whether a clone holds a commit."""
    return not subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=root, capture_output=True).returncode
