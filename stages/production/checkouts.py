"""Git worktrees of this repository, in which retrainings run."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from pathlib import Path

from ballast.exceptions import UserError
from stages.store.project import PROJECT


def run_git(*arguments: str | Path, folder: Path = PROJECT.root) -> str:
    """Run a git command in a folder, and return its output; raises UserError when it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(map(str, arguments))}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def remove_checkout(worktree: Path) -> None:
    """Remove a checkout, even one that a killed process left half made or half removed."""
    shutil.rmtree(worktree, ignore_errors=True)
    run_git("worktree", "prune")
    # Git locks a worktree while it is made; --force given twice overrides the lock.
    if f"worktree {worktree.resolve()}" in run_git("worktree", "list", "--porcelain").splitlines():
        run_git("worktree", "remove", "--force", "--force", str(worktree))


def bring(path: str, worktree: Path) -> None:
    """Link the files at a path of params.yaml into a checkout, unless git has the same content there.

    A URL or an absolute path needs no link.
    """
    source = Path(path)
    if "://" in path or source.is_absolute() or not source.exists():
        return
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for file in files:
        target = worktree / file
        if target.exists() and filecmp.cmp(file, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(file.resolve())


def changed_since(commit: str, *paths: str) -> list[str]:
    """The files at some paths that differ from a commit, and new files that git does not ignore."""
    listed = run_git("diff", "--name-only", "-z", "--no-renames", commit, "--", *paths)
    new = run_git("ls-files", "--others", "--exclude-standard", "-z", "--", *paths)
    return sorted({name for name in (listed + "\0" + new).split("\0") if name})
