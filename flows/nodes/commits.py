"""Bring a clone to a commit, without losing work in it."""

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

# DVC writes this file wherever it runs, and can write it again.
WRITTEN_BY_DVC = "dvc.lock"
# Interval at which a process that waits for a clone looks again.
POLL_SECONDS = 0.5


def run_git(root: Path, *arguments: str) -> str:
    """Run git in a clone and return its output; raises UserError if it fails."""
    # A prompt would wait for an answer and block the clone. A killed `git status` would leave its lock on the index.
    env = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *arguments], cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout.strip("\n")


def head(root: Path) -> str:
    """The commit that is checked out; raises UserError if there is none."""
    return run_git(root, "rev-parse", "--verify", "HEAD^{commit}")


def uncommitted(root: Path, *paths: str, untracked: bool = False) -> list[str]:
    """Files, under some paths or everywhere, that differ from the commit; on request untracked ones too."""
    listed = run_git(
        root, "status", "--porcelain", "-z", "--no-renames", f"--untracked-files={'all' if untracked else 'no'}", "--", *paths
    )
    return [line[3:] for line in listed.split("\0") if line]


@contextmanager
def at_commit(root: Path, commit: str, data: str = "") -> Iterator[None]:
    """Hold a clone at a commit, together with all others that need the same commit and data.

    Others wait, because their files would replace those that a training reads. Fetches and checks out the commit if necessary.
    Raises UserError with both commits if that fails or would overwrite work in the clone.
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
                # Waiting in the lock's queue would also wait for an earlier process that needs the same commit.
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(POLL_SECONDS)
                continue
            remove_index_lock(root)
            check_out(root, commit)
            file.truncate(0)
            file.write(data)
            file.flush()
        yield


def check_out(root: Path, commit: str) -> None:
    """Check out a commit, from the clone's history or from its origin; raises UserError, and then leaves all work unchanged."""
    if (current := head(root)) == commit:
        return
    where = f"the clone is at commit {current[:12]}, the pipeline at {commit[:12]}"
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
            raise UserError(f"{where}, which is missing after a fetch; push it")
    if run_git(root, "ls-files", WRITTEN_BY_DVC):
        run_git(root, "checkout", "--quiet", "--", WRITTEN_BY_DVC)
    else:
        (root / WRITTEN_BY_DVC).unlink(missing_ok=True)
    # Not forced: an untracked file in the way may be work of the user.
    run_git(root, "checkout", "--quiet", "--detach", commit)


def has(root: Path, commit: str) -> bool:
    """Whether a clone has a commit."""
    return not subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=root, capture_output=True).returncode
