"""A small project in which commands are started and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from tests.project import project_with_window

# The finished tasks of Label Studio, and the pattern of the windows of the endpoint: a year, so that no window ends meanwhile.
TASKS, WINDOW = "project-1.json", "w%Y"


@dataclass
class Ground:
    """A small project in one folder; copies of its states lie next to it."""

    folder: Path
    environment: Mapping[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    expected: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def keep(self, state: str) -> None:
        """Save the project's state under a name."""
        copied(self.project, self.folder / "states" / state)

    def restore(self, state: str) -> None:
        """Restore a saved state of the project."""
        subprocess.run(["rm", "-rf", str(self.project)], check=True)
        copied(self.folder / "states" / state, self.project)

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in its own process group; its output goes to a file."""
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.project,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, commands: Sequence[Sequence[str]], limit: float = 1200.0) -> str:
        """Run commands side by side to their ends; return why one failed, or nothing."""
        (self.folder / "output.log").unlink(missing_ok=True)
        children = [self.start(command) for command in commands]
        deadline = time.monotonic() + limit
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_everything(self.project, children)
                return f"still running after {limit:.0f} s"
        if all(child.returncode == 0 for child in children):
            return ""
        return self.said()

    def said(self) -> str:
        """The last lines of the commands' output."""
        return " | ".join((self.folder / "output.log").read_text(errors="replace").splitlines()[-8:])


def patience(undisturbed: float) -> float:
    """The seconds after which a rerun counts as blocked."""
    return 10 * undisturbed + 60


def copied(folder: Path, target: Path) -> None:
    """Copy a folder; hard links stay hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(folder), str(target)], check=True)


def working_in(folder: Path) -> list[psutil.Process]:
    """All processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_groups(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the process groups of commands; processes that they started in other groups must end by themselves."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    for child in children:
        child.wait()


def kill_everything(folder: Path, children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill commands and all processes in a folder, as the end of a container does."""
    kill_groups(children)
    while left := working_in(folder):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def small_project(folder: Path, python: Path | None) -> None:
    """A project with few messages and one linear model, a window of another class prior, and its labels."""
    project = project_with_window(folder, python)
    project.edit(
        {
            "techniques": {"tfidf": {}},
            "train.seeds": [0, 1],
            "production.retrain.margin": 0.3,
            "report.sample": 200,
            "production.score.window": WINDOW,
        }
    )
    labels = pd.read_csv(folder / "labels.csv")
    tasks = [{"id": at, "message_id": row.id, "text": "", "label": row.label} for at, row in enumerate(labels.itertuples(), 1)]
    (folder / TASKS).write_text(json.dumps(tasks))
