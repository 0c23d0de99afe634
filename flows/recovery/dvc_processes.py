"""Which processes run dvc, and in which checkout: an entry in DVC's lock files counts only while its process is_alive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

# Options of Python that take the next word.
WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")
# From a process's start as the kernel counts it to the time stamps of files, which come from another clock.
CLOCKS_SECONDS = 5.0
DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def checkout_of(folder: Path) -> Path | None:
    """The DVC repository that a folder is in; a checkout within another one is its own."""
    return next((each for each in (folder, *folder.parents) if (each / ".dvc").is_dir()), None)


def program(words: Sequence[str]) -> str:
    """What a command line runs, by its last name: a module or script where Python runs it; nothing for other code."""
    if not words or not Path(words[0]).name.startswith(("python", "pypy")):
        return Path(words[0]).stem if words else ""
    at = 1
    while at < len(words) and words[at].startswith("-"):
        if re.fullmatch(r"-[A-Za-z]*m", words[at]):
            return words[at + 1].rpartition(".")[2] if at + 1 < len(words) else ""
        if re.fullmatch(r"-[A-Za-z]*c", words[at]):
            return ""
        at += 2 if words[at] in WITH_VALUE else 1
    return Path(words[at]).stem if at < len(words) else ""


def running_dvc(root: Path | None = None) -> Iterator[psutil.Process]:
    """The running commands dvc, of one checkout or of all; one of another user, whose folder is secret, is of any."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if program(process.cmdline()) != "dvc" or process.status() in DEAD:
                continue
            try:
                folder = Path(process.cwd())
            except psutil.AccessDenied:
                yield process
            else:
                if root is None or checkout_of(folder) == root.resolve():
                    yield process


def is_alive(entry: Mapping[str, Any], root: Path, written: float) -> bool:
    """Whether the process of an entry {pid, cmd} in a lock file is still the one that made it; in doubt it is.

    written : the last change of the file. A process that began later made none of its entries.
    """
    try:
        process = psutil.Process(entry["pid"])
        if process.status() in DEAD or process.create_time() > written + CLOCKS_SECONDS:
            return False
        words = process.cmdline()
        if program(words) == "dvc":
            return checkout_of(Path(process.cwd())) == root.resolve()
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False
    # A program that uses DVC as a library, wherever it was started; DVC notes its script and arguments.
    script, *arguments = entry["cmd"].split(" ")
    same = (
        Path(script).stem == program(words) or (script in ("", "-c") and not program(words)) or script.endswith("__main__.py")
    )
    return same and " ".join(words).endswith(" ".join(arguments))
