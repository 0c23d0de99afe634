"""Snapshots of a project's folder, file by file, and the differences between two snapshots."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

KINDS = ("lost", "doubled", "blocked", "partial", "other result")
# These may differ after a kill. Everything else is compared byte by byte.
EXCEPTIONS = (
    # Git's internal files; `git status` and `git worktree list` are compared instead.
    re.compile(r"\.git/.*"),
    # DVC's internal files: databases of times and inodes, locks. Entries in rwlock are compared.
    re.compile(r"\.dvc/tmp/.*"),
    # Bytecode contains the time of its source.
    re.compile(r"(.*/)?__pycache__/.*"),
    # Great Expectations names pages by the time of the run.
    re.compile(r"data/data_docs/.*"),
    # The duration of each training.
    re.compile(r"durations/.*"),
)
TEMPORARY = re.compile(r"(.*/)?\..*\.(partial|tmp)(/.*)?|(.*/)?index\.lock")
# The time of a deployment; the order of the stages in dvc.lock, which depends on when parallel stages end.
HISTORY, LOCK = "production/deployed/current.json", "dvc.lock"


def snapshot(folder: Path) -> dict[str, str]:
    """The sha256 of each file by its name, except the listed exceptions; half-written files are no exception."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        excepted = any(pattern.fullmatch(name) for pattern in EXCEPTIONS)
        if path.is_file() and (not excepted or TEMPORARY.fullmatch(name)):
            found[name] = hashlib.sha256(content(path, name)).hexdigest()
    for command in (["status", "--porcelain"], ["worktree", "list", "--porcelain"]):
        done = subprocess.run(["git", "--no-optional-locks", *command], cwd=folder, capture_output=True, check=True)
        found[f"git {' '.join(command)}"] = hashlib.sha256(done.stdout).hexdigest()
    found |= {f"{path.relative_to(folder)}: {entry}": "" for path in [folder / ".dvc/tmp/rwlock"] for entry in entries(path)}
    return found


def content(path: Path, name: str) -> bytes:
    """The content of a file to compare: without times, digests over times, and the order of entries."""
    if name == LOCK:
        return json.dumps(YAML(typ="safe").load(path.read_text(encoding="utf-8")), sort_keys=True).encode()
    if name != HISTORY:
        return path.read_bytes()
    found = json.loads(path.read_text(encoding="utf-8"))
    for entry in found["history"]:
        del entry["at"]
    return json.dumps({"version": found["version"], "history": found["history"]}).encode()


def entries(rwlock: Path) -> list[str]:
    """The entries of DVC's read and write locks."""
    try:
        return sorted(f"{kind} {name}" for kind, names in json.loads(rwlock.read_text()).items() for name in names)
    except FileNotFoundError:
        return []
    except ValueError:
        return ["unreadable"]


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of files that differ, by the kind of harm."""
    more = sorted(set(found) - set(expected))
    temporary = [name for name in more if TEMPORARY.fullmatch(name) or name.startswith(".dvc/tmp/rwlock")]
    harm = {
        "lost": sorted(set(expected) - set(found)),
        "doubled": [name for name in more if name not in temporary],
        "partial": temporary,
        "other result": sorted(name for name in set(expected) & set(found) if expected[name] != found[name]),
    }
    return {kind: names for kind, names in harm.items() if names}
