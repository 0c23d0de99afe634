"""Trainings as processes of their own, to be stopped and killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from stages.store.project import PROJECT
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


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what a running process brings about."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_training(project: Project, process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The processes that train together, once they are at their steps and a checkpoint is written."""
    wait_until((project.folder / PROJECT.checkpoints / name / "0.safetensors").exists, process)
    return [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
