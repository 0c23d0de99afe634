"""DVC as the flows run it: what it reports, and a dvc.lock with the bytes of DVC's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flows.commands import run_dvc
from flows.failures import StageFailed
from flows.recovery.dvc_processes import DVC
from tests.flow_fixtures import GRAPH, StandIn, stand_in

# Values that YAML quotes, folds or writes in a form of its own, and a name of a stage that needs quotes.
VALUES = {
    "texts": ["", " ", "yes", "1e-05", "a: b", "# c", "line\nline\n\n  line\n", "word " * 40, "\N{GRINNING FACE}", "\u2028"],
    "numbers": [1e-05, 1.0, -0.0, 1e22, 10**20, float("inf"), None, True],
    "empty": {"list": [], "map": {}},
    "300": {"a" * 150: "b" * 200},
}


@pytest.fixture
def repository(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path)


def test_a_dvc_command_reports_what_ran_and_files_in_use_are_transient(repository: StandIn) -> None:
    for name in ("ingest", "sample@a-0"):
        repository.on(name, "true")
    repro = ["repro", "--single-item", "ingest"]
    assert run_dvc("ingest", repro, print, folder=repository.folder) == ["ingest"]
    assert run_dvc("ingest", repro, print, folder=repository.folder) == []
    in_use = {"write": {str(repository.folder / "data.txt"): {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
    repository.write(".dvc/tmp/rwlock", json.dumps(in_use).encode())
    with pytest.raises(StageFailed) as failed:
        run_dvc("sample", ["repro", "--single-item", "sample@a-0"], print, folder=repository.folder)
    assert (failed.value.code, failed.value.transient, repository.steps[2:]) == (75, True, [])


def with_values(folder: Path, values: object) -> StandIn:
    """A repository whose first stage depends on values of params.yaml and whose last one has a name in quotes."""
    folder.mkdir()
    made = stand_in(folder)
    graph = GRAPH.replace("deps: [raw.txt]", "deps: [raw.txt]\n    params: [values]").replace("  report:", '  "1.5":')
    made.write("dvc.yaml", graph.encode())
    edit(made, values)
    return made


def edit(repository: StandIn, values: object) -> None:
    params = {"techniques": {"a": {}, "b": {}}, "seeds": [0], "values": values}
    repository.write("params.yaml", json.dumps(params, ensure_ascii=False).encode())


def test_the_bytes_of_the_lock_file_are_those_of_dvc(tmp_path: Path) -> None:
    ours, of_dvc = with_values(tmp_path / "ours", VALUES), with_values(tmp_path / "dvc", VALUES)
    for values in (VALUES, {**VALUES, "texts": []}, "none"):
        for repository, command in ((ours, DVC), (of_dvc, ["dvc"])):
            edit(repository, values)
            done = repository.run(*command, "repro")
            assert done.code == 0 and "Updating lock file 'dvc.lock'" in done.stdout, done.stderr
        assert (ours.folder / "dvc.lock").read_bytes() == (of_dvc.folder / "dvc.lock").read_bytes()
    assert [path.name for path in ours.folder.glob("dvc.lock*")] == ["dvc.lock"]


def test_what_else_the_lock_file_holds_stays(repository: StandIn) -> None:
    assert repository.run(*DVC, "repro", "ingest").code == 0
    lock = repository.folder / "dvc.lock"
    lock.write_text(lock.read_text() + "datasets:\n- name: other\n")
    repository.write("raw.txt", b"others")
    done = repository.run(*DVC, "repro", "ingest", "sample")
    assert done.code == 0, done.stderr
    assert lock.read_text().endswith("datasets:\n- name: other\n") and "sample@b-0" in lock.read_text()
