"""Commands killed at random moments, and how what is there then is compared; `make test-kills` kills more often."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.kills import SCENES, try_kills
from benchmarks.snapshots import HISTORY, KINDS, differences, snapshot

QUICK = ("repro, two side by side", "score", "promote", "reprior", "feedback")


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_each_kind_of_harm_is_told_from_the_others(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    switch = {"version": "0001", "at": "2026-01-01", "reason": "promote"}
    files = {
        "a": "1",
        "b": "1",
        HISTORY: json.dumps({"version": "0001", "history": [switch]}),
        "dvc.lock": "stages:\n  a: {cmd: x}\n  b: {cmd: y}\n",
        ".gitignore": "*",
    }
    for name, text in files.items():
        write(tmp_path, name, text)
    expected = snapshot(tmp_path)
    # Nothing of this is harm.
    write(tmp_path, HISTORY, json.dumps({"version": "0001", "history": [{**switch, "at": "2026-02-02"}]}))
    write(tmp_path, "dvc.lock", "stages:\n  b: {cmd: y}\n  a: {cmd: x}\n")
    write(tmp_path, "durations/a.json", "1")
    write(tmp_path, ".dvc/tmp/rwlock", '{"read": {}}')
    write(tmp_path, "stages/__pycache__/a.pyc", "1")
    assert differences(expected, snapshot(tmp_path)) == {}
    write(tmp_path, "b", "2")
    (tmp_path / "a").unlink()
    write(tmp_path, HISTORY, json.dumps({"version": "0001", "history": [switch, switch]}))
    for name in ("c", "data/.d.abc.partial", "models/.0.abc.partial/new/weights", ".git/index.lock", ".dvc/tmp/.x.partial"):
        write(tmp_path, name, "")
    write(tmp_path, ".dvc/tmp/rwlock", '{"write": {"/x": {}}}')
    found = differences(expected, snapshot(tmp_path))
    assert set(found) == set(KINDS) - {"blocked"}
    assert (found["lost"], found["doubled"], found["other result"]) == (["a"], ["c"], ["b", HISTORY])
    assert found["partial"] == [
        ".dvc/tmp/.x.partial",
        ".dvc/tmp/rwlock: write /x",
        ".git/index.lock",
        "data/.d.abc.partial",
        "models/.0.abc.partial/new/weights",
    ]
    write(tmp_path, ".dvc/tmp/rwlock", "{")
    assert ".dvc/tmp/rwlock: unreadable" in differences(expected, snapshot(tmp_path))["partial"]


@pytest.mark.slow
def test_eight_random_kills_lose_double_block_and_leave_nothing(tmp_path: Path, quick_python: Path) -> None:
    scenes = [scene for scene in SCENES if scene.name in QUICK]
    *_, counts = try_kills(8, 1, scenes, tmp_path, quick_python)
    assert sum(each["kills"] for each in counts.values()) == 8
    assert {name: +each for name, each in counts.items() if any(each[kind] for kind in KINDS)} == {}
