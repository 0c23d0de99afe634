"""Trainings as processes of their own, to be stopped and killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.project import TINY_TRAINING, Project, corpus, workspace


def sampled_project(folder: Path, encoder: Path, name: str, changes: Mapping[str, Any]) -> Project:
    """A project in which the next stage is the training of one entry."""
    project = workspace(folder)
    project.write("messages.csv", corpus({"ham": 90, "spam": 40}))
    tiny = {f"train.{key}": value for key, value in TINY_TRAINING.items()}
    project.edit({"techniques": {name: {}}, "train.model": str(encoder), **tiny, "train.batch_size": 16, **changes})
    for stage, arguments in {"ingest": {}, "techniques": {}, "resample": {"name": name, "seed": 0}}.items():
        done = project.stage_here(stage, **arguments)
        assert done.code == 0, done.stderr
    return project


@contextlib.contextmanager
def started(project: Project, name: str) -> Iterator[subprocess.Popen[str]]:
    """The training of an entry, which runs until the block ends."""
    env = project.environment | {"PYTHONPATH": str(project.code)}
    command = [sys.executable, "-m", "stages.train", name, "0"]
    with subprocess.Popen(command, cwd=project.folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(ready: Any, process: subprocess.Popen[str]) -> None:
    """Wait for what a running process brings about."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read() if process.poll() else "too late"
        time.sleep(0.02)


def in_training(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The processes of a training, once it is at its steps."""
    assert process.stderr is not None
    for line in process.stderr:
        if ": step " in line:
            break
    else:
        raise AssertionError("the training ended before its first line")
    children = psutil.Process(process.pid).children()
    found = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    assert len(found) == count
    return found
