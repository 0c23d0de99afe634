"""Back up dvc.lock, which DVC empties and rewrites after each stage, and restore the copy after a kill truncated the file.

In a graph of hundreds of stages, DVC spends a tenth of the time writing the file. A copy lacks at most the last stage.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ballast.exceptions import UserError

# Copies that were parsed completely, copies without that check, and damaged files.
VERIFIED, UNVERIFIED, BROKEN = (Path(f".dvc/tmp/kept/{kind}") for kind in ("whole", "written", "broken"))
LOCKS = ("dvc.lock", "studies/*/dvc.lock")
# DVC writes without a pause, so a file that is unchanged for this time is complete.
PAUSE_SECONDS = 1.0


def locks(root: Path) -> list[Path]:
    """DVC's lock files of a checkout, as relative paths."""
    return [path.relative_to(root) for pattern in LOCKS for path in sorted(root.glob(pattern))]


def fault(path: Path) -> str:
    """What is wrong with a dvc.lock; "" for a valid file."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            return "it is empty"
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        return "not valid YAML" if error.problem_mark is None else f"row {error.problem_mark.line + 1}: not valid YAML"
    except (YAMLError, ValueError, RecursionError) as error:
        return f"not valid YAML: {' '.join(str(error).split())[:200]}"
    stages = content.get("stages", {}) if isinstance(content, dict) and "schema" in content else None
    if not isinstance(stages, dict):
        return "not what DVC writes"
    return next((f"stage {name} is incomplete" for name, stage in stages.items() if not is_complete(stage)), "")


def is_complete(stage: Any) -> bool:
    """Whether the entry of a stage has all that DVC writes."""
    if not isinstance(stage, dict) or "cmd" not in stage:
        return False
    lists = [stage.get(kind, []) for kind in ("deps", "outs")]
    return all(isinstance(files, list) and all(isinstance(file, dict) and "path" in file for file in files) for files in lists)


def same(path: Path, copied: Path) -> bool:
    """Whether two files have the same size and modification time, as a file and its copy here."""
    with suppress(FileNotFoundError):
        here, there = path.stat(), copied.stat()
        return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return False


def copy(path: Path, target: Path, *, only_valid: bool = False) -> None:
    """Copy a file and its modification time atomically; with `only_valid`, not if a living dvc has begun to rewrite it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Threads of one process may copy at the same time.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.{os.getpid()}.partial")
    shutil.copy2(path, temporary)
    if only_valid and fault(temporary):
        temporary.unlink()
    else:
        temporary.replace(target)


def back_up_written(root: Path, pause: float = PAUSE_SECONDS) -> None:
    """Back up each dvc.lock that is unchanged for `pause` seconds, without parsing it: cheap enough for frequent calls."""
    for name in locks(root):
        with suppress(FileNotFoundError):
            since = time.time() - (root / name).stat().st_mtime
            if since >= pause and not same(root / name, root / UNVERIFIED / name):
                copy(root / name, root / UNVERIFIED / name)


def back_up_or_restore(root: Path, guard: Callable[[], AbstractContextManager[None]]) -> list[str]:
    """Back up each valid dvc.lock, and replace each truncated one by its last valid copy; returns a line per restored file.

    guard : holds DVC's lock of the checkout, so that a file which a living dvc writes is not taken for a truncated one.

    Raises UserError if there is no copy, or if a program other than DVC wrote the file.
    """
    lines = []
    for left in (root / VERIFIED.parent).rglob(".*.partial"):
        if not psutil.pid_exists(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    for name in locks(root):
        path, copied = root / name, root / VERIFIED / name
        if same(path, copied):
            continue
        if fault(path):
            with guard():
                if reason := fault(path):
                    restore(root, name, reason)
                    lines.append(f"{path} restored, because a killed dvc damaged it ({reason}); stages that it lacks run again")
        elif (root / ".dvc").is_dir():
            copy(path, copied, only_valid=True)
    return lines


def restore(root: Path, name: Path, reason: str) -> None:
    """Replace a broken dvc.lock by its last valid copy, and keep the broken one; raises UserError."""
    path = root / name
    copies = [root / folder / name for folder in (VERIFIED, UNVERIFIED)]
    valid = [copied for copied in copies if copied.exists() and not fault(copied)]
    # The user must finish a merge in git.
    if not valid or b"<<<<<<<" in path.read_bytes():
        raise UserError(
            f"{path}: {reason}, so DVC does not know what is up to date; `git checkout -- {name}` restores that of the last"
            " commit, or delete it: then all stages run again"
        )
    copy(path, root / BROKEN / name)
    copy(max(valid, key=lambda copied: copied.stat().st_mtime), path)
