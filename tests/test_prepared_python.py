"""Stages that start as forks of a prepared process: they behave as in a new Python, and end with what started them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from flows.prepared_python import LIBRARIES, prepared_python

ECHO = """
import os, sys
from stages import other
print(os.getcwd(), os.environ["CHOSEN"], sys.argv[1:], sys.stdin.read(), other.VALUE, __name__, "xml.dom" in sys.modules)
print("an error", file=sys.stderr)
sys.exit(3)
"""
WAIT = """
import os, time
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with stages."""
    for name, content in {"echo": ECHO, "wait": WAIT, "other": "VALUE = 7", "__init__": ""}.items():
        (tmp_path / "stages").mkdir(exist_ok=True)
        (tmp_path / f"stages/{name}.py").write_text(content, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    with prepared_python(["xml.dom", "no_such_library"], wait=True) as made:
        yield made / "python"


def test_the_libraries_exist() -> None:
    assert [name for name in LIBRARIES if find_spec(name) is None] == []


def echoed(python: Path, folder: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a stage that prints what it has."""
    command, env = [python, "-m", "stages.echo", "a", "b"], {"CHOSEN": "mine"}
    done = subprocess.run(command, cwd=folder, env=env, input="given", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_stage_has_its_own_folder_environment_and_streams(python: Path, folder: Path) -> None:
    expected = f"{folder} mine ['a', 'b'] given 7 __main__"
    assert echoed(python, folder) == (3, f"{expected} True\n", "an error\n")


def test_a_stage_runs_in_a_new_python_while_no_server_answers(folder: Path) -> None:
    with prepared_python([], wait=True) as made:
        ended = folder / "python"
        shutil.copy(made / "python", ended)
    expected = f"{folder} mine ['a', 'b'] given 7 __main__"
    assert echoed(ended, folder) == (3, f"{expected} False\n", "an error\n")


def test_a_killed_client_takes_its_stage_with_it(python: Path, folder: Path) -> None:
    with subprocess.Popen([python, "-m", "stages.wait"], cwd=folder, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        stage = psutil.Process(int(client.stdout.readline()))
        client.kill()
    stage.wait(120)


def test_the_server_ends_with_a_killed_parent_and_a_running_stage_does_not(folder: Path) -> None:
    code = """
import sys, time
from flows.prepared_python import prepared_python
with prepared_python([], wait=True) as made:
    print(made / "python", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        python = parent.stdout.readline().strip()
        [server] = psutil.Process(parent.pid).children()
        with subprocess.Popen([python, "-m", "stages.wait"], cwd=folder, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            stage = psutil.Process(int(client.stdout.readline()))
            parent.kill()
            # Its parent is dead, so nobody else waits for it.
            deadline = time.monotonic() + 120
            while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
            assert stage.is_running()
            client.kill()
    stage.wait(120)
