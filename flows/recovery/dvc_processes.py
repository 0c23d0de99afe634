"""Find processes that run DVC, and their checkout: an entry in DVC's lock files counts only while its process lives."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

# Runs DVC. -P: modules of its folder must not shadow others.
DVC = [sys.executable, "-P", str(Path(__file__).parents[1] / "dvc_command.py")]
# Programs that run DVC.
PROGRAMS = ("dvc", "dvc_command")
# Options of Python that take a value.
WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")
# Largest difference between the kernel's clock of process starts and the clock of file timestamps.
CLOCKS_SECONDS = 5.0
DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def checkout_of(folder: Path) -> Path | None:
    """The DVC repository that contains a folder; the innermost one if they are nested."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), None)


def program(words: Sequence[str]) -> str:
    """The name of the program in a command line; for Python that of its script or module, or "" for other code.

    >>> program(["/env/bin/python3.11", "-m", "dvc", "repro"]), program(["python", "-c", "pass"])
    ('dvc', '')
    """
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
    """The running DVC processes of one checkout or, without `root`, of all.

    A process with an unreadable working directory, such as one of another user, counts for every checkout.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if program(process.cmdline()) not in PROGRAMS or process.status() in DEAD:
                continue
            try:
                folder = Path(process.cwd())
            except psutil.AccessDenied:
                yield process
            else:
                if root is None or checkout_of(folder) == root.resolve():
                    yield process


def is_alive(entry: Mapping[str, Any], root: Path, written: float) -> bool:
    """Whether the process that made an entry {pid, cmd} of a lock file still runs; True in case of doubt.

    written : time of the file's last change, in seconds. A process that started later made none of its entries.
    """
    try:
        process = psutil.Process(entry["pid"])
        if process.status() in DEAD or process.create_time() > written + CLOCKS_SECONDS:
            return False
        words = process.cmdline()
        if program(words) in PROGRAMS:
            return checkout_of(Path(process.cwd())) == root.resolve()
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False
    # A program that uses DVC as a library, started from any folder; DVC notes its script and arguments.
    script, *arguments = entry["cmd"].split(" ")
    same = (
        Path(script).stem == program(words) or (script in ("", "-c") and not program(words)) or script.endswith("__main__.py")
    )
    return same and " ".join(words).endswith(" ".join(arguments))
