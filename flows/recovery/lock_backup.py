"""The last whole dvc.lock is kept: DVC empties the file and writes it anew after each stage, which a kill may cut off.

In a graph of hundreds of stages it is being written for a tenth of the time. What was kept lacks at most the last stage.
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

# Those that were read to their ends, those that were just there, and those that were cut off.
KEPT, WRITTEN, BROKEN = (Path(f".dvc/tmp/kept/{kind}") for kind in ("whole", "written", "broken"))
LOCKS = ("dvc.lock", "studies/*/dvc.lock")
# DVC writes without a pause; a file that has stood as long is written to its end.
PAUSE_SECONDS = 1.0


def locks(root: Path) -> list[Path]:
    """The files in which DVC notes what is up to date, by their names in the checkout."""
    return [path.relative_to(root) for pattern in LOCKS for path in sorted(root.glob(pattern))]


def fault(path: Path) -> str:
    """What is wrong with a dvc.lock; nothing when it is whole."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            return "it is empty"
        found = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        return "not valid YAML" if error.problem_mark is None else f"row {error.problem_mark.line + 1}: not valid YAML"
    except (YAMLError, ValueError, RecursionError) as error:
        return f"not valid YAML: {' '.join(str(error).split())[:200]}"
    stages = found.get("stages", {}) if isinstance(found, dict) and "schema" in found else None
    if not isinstance(stages, dict):
        return "not what DVC writes"
    return next((f"stage {name} is not whole" for name, stage in stages.items() if not whole(stage)), "")


def whole(stage: Any) -> bool:
    """Whether a stage's entry has what DVC writes of each."""
    if not isinstance(stage, dict) or "cmd" not in stage:
        return False
    files = [stage.get(kind, []) for kind in ("deps", "outs")]
    return all(isinstance(some, list) and all(isinstance(each, dict) and "path" in each for each in some) for some in files)


def same(path: Path, kept: Path) -> bool:
    """Whether two files have the same size and time, as a file and its copy here."""
    with suppress(FileNotFoundError):
        here, there = path.stat(), kept.stat()
        return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return False


def copy(path: Path, target: Path, *, only_whole: bool = False) -> None:
    """Copy a file with its time, all at once; with `only_whole` not where a living dvc has begun to write it meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Threads of one process copy side by side.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.{os.getpid()}.partial")
    shutil.copy2(path, temporary)
    if only_whole and fault(temporary):
        temporary.unlink()
    else:
        temporary.replace(target)


def back_up_written(root: Path, pause: float = PAUSE_SECONDS) -> None:
    """Keep each dvc.lock that nobody has written to for a moment, without a proof; cheap, for who calls it all the time."""
    for name in locks(root):
        with suppress(FileNotFoundError):
            since = time.time() - (root / name).stat().st_mtime
            if since >= pause and not same(root / name, root / WRITTEN / name):
                copy(root / name, root / WRITTEN / name)


def back_up_or_restore(root: Path, guard: Callable[[], AbstractContextManager[None]]) -> list[str]:
    """Keep each dvc.lock that is whole, and put the last whole one in the place of one that a kill cut off: what was restored.

    guard : holds DVC's lock of the checkout, so that a file which a living dvc writes just now is not taken for one cut off.

    Raises UserError where none was kept, or where somebody else than DVC wrote the file.
    """
    lines = []
    for left in (root / KEPT.parent).rglob(".*.partial"):
        if not psutil.pid_exists(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    for name in locks(root):
        path, kept = root / name, root / KEPT / name
        if same(path, kept):
            continue
        if fault(path):
            with guard():
                if wrong := fault(path):
                    restore(root, name, wrong)
                    lines.append(f"{path} restored, {wrong}: a dvc that was killed left it so; what it lacks runs again")
        elif (root / ".dvc").is_dir():
            copy(path, kept, only_whole=True)
    return lines


def restore(root: Path, name: Path, wrong: str) -> None:
    """Put the last whole dvc.lock in the place of a broken one, which stays beside it; raises UserError."""
    path = root / name
    found = [each for folder in (KEPT, WRITTEN) if (each := root / folder / name).exists() and not fault(each)]
    # A merge in git is a person's to finish.
    if not found or b"<<<<<<<" in path.read_bytes():
        raise UserError(
            f"{path}: {wrong}, so DVC does not know what is up to date; `git checkout -- {name}` restores that of the last"
            " commit, or delete it: all stages run again"
        )
    copy(path, root / BROKEN / name)
    copy(max(found, key=lambda each: each.stat().st_mtime), path)
