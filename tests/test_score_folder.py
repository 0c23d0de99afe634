"""Scoring a folder file by file: as one window, each file once, malformed ones; with kills on a real Ray cluster (slow)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pandas as pd
import psutil
import pytest
import torch
from pyarrow import parquet

from ballast.exceptions import UserError
from stages.production.deployed import current_version, read_version
from stages.production.score_file import Scorer, Target, output_name
from stages.production.score_folder import TRIES, orphans, work
from stages.store.params import read_params
from tests.deployed import deploy, prior_model, tfidf
from tests.flow_fixtures import eventually, free_port
from tests.project import Project, corpus

MESSAGES = corpus({"ham": 60, "spam": 30}).assign(id=[f"m{row}" for row in range(90)])
PARTS = {"b/second.parquet": MESSAGES[:60], "first.csv": MESSAGES[60:]}
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="make nodes")


@pytest.fixture
def ready(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A workspace, which is the current folder, with a deployed linear model and messages in files of a folder."""
    deploy(workspace.folder, tfidf(MESSAGES))
    workspace.edit({"production.score.id_column": "id", "production.score.quarantine": 0.5})
    for name, part in PARTS.items():
        workspace.write(f"messages/{name}", part[["text", "id"]])
    monkeypatch.chdir(workspace.folder)
    return workspace


@pytest.fixture(params=["here", "store"])
def target(request: pytest.FixtureRequest, ready: Project) -> Iterator[Target]:
    """An empty folder for scores, here or in an object store."""
    if request.param == "here":
        yield Target(*fsspec.core.url_to_fs(str(ready.folder / "scores")))
    else:
        made = Target(*fsspec.core.url_to_fs(f"memory://{uuid4()}"))
        yield made
        if made.system.exists(made.root):
            made.system.rm(made.root, recursive=True)


def score(target: Target, source: str = "messages") -> dict[str, dict[str, Any]]:
    """What becomes of each file, in the order in which they are begun."""
    system, rows = work(str(Path(source).resolve()), target)
    version = read_version(current_version())
    scorer = Scorer(system, target, read_params(), version, version.load())
    return {row["name"]: scorer.result(**row) for row in rows}


def anew(target: Target) -> list[str]:
    """The files that are scored anew; nothing goes wrong."""
    results = score(target)
    assert {result["error"] for result in results.values()} == {""}
    return [name for name, result in results.items() if result["anew"]]


def files(target: Target) -> dict[str, bytes]:
    """What a reader finds in the folder: the files without the hidden ones."""
    found = target.system.find(target.root)
    return {
        name: target.system.cat_file(path)
        for path in found
        if not (name := path.removeprefix(target.root).lstrip("/")).rpartition("/")[2].startswith(".")
    }


def table(target: Target, name: str) -> pd.DataFrame:
    with target.system.open(target.at(name), "rb") as file:
        return parquet.read_table(file).to_pandas()


def test_scores_are_those_of_one_window(ready: Project, target: Target) -> None:
    assert anew(target) == ["b/second.parquet", "first.csv"]
    assert set(files(target)) == {"b/second.parquet", "first.csv.parquet"}
    assert ready.stage_here("score", source="messages", window="w").code == 0
    window = pd.read_parquet("production/scored/w.parquet")
    ours = pd.concat([table(target, "b/second.parquet"), table(target, "first.csv.parquet")], ignore_index=True)
    pd.testing.assert_frame_equal(ours, window)
    about = target.metadata("b/second.parquet")
    assert (about["window"], about["scored"], about["quarantined"], about["model"]) == ("b/second.parquet", 60, 0, "0001")
    assert about["source"].endswith("messages/b/second.parquet")


def test_what_has_its_scores_is_not_scored_again(ready: Project, target: Target) -> None:
    assert len(anew(target)) == 2
    before = files(target)
    assert anew(target) == []
    assert files(target) == before
    ready.write("messages/first.csv", MESSAGES[60:70][["text", "id"]])
    assert anew(target) == ["first.csv"]
    assert len(table(target, "first.csv.parquet")) == 10
    assert files(target)["b/second.parquet"] == before["b/second.parquet"]


def test_another_model_and_other_settings_score_again(ready: Project, target: Target) -> None:
    assert len(anew(target)) == 2
    deploy(ready.folder, prior_model({"ham": 0.9, "spam": 0.1}), "0002")
    assert len(anew(target)) == 2
    assert set(table(target, "first.csv.parquet")["model"]) == {"0002"}
    ready.edit({"production.score.id_column": None})
    assert len(anew(target)) == 2
    assert list(table(target, "first.csv.parquet")["id"])[:2] == ["first.csv-1", "first.csv-2"]
    for setting, value in {"longest_text": 10_000, "quarantine": 0.4}.items():
        ready.edit({f"production.score.{setting}": value})
        assert len(anew(target)) == 2


def test_scores_that_are_not_whole_are_made_again(ready: Project, target: Target) -> None:
    assert len(anew(target)) == 2
    before = files(target)
    target.system.pipe_file(target.at("first.csv.parquet"), before["first.csv.parquet"][:-10])
    assert anew(target) == ["first.csv"]
    assert files(target) == before


def test_malformed_rows_are_kept_apart_by_file(ready: Project, target: Target) -> None:
    ready.write("messages/first.csv", pd.concat([MESSAGES[60:70], MESSAGES[60:63]])[["text", "id"]])
    assert len(anew(target)) == 2
    rows = [json.loads(line) for line in files(target)["_quarantine/first.csv.jsonl"].splitlines()]
    assert [(row["row"], row["reason"]) for row in rows] == [(n, "an earlier row has the same id") for n in (11, 12, 13)]
    assert set(files(target)) == {"b/second.parquet", "first.csv.parquet", "_quarantine/first.csv.jsonl"}
    ready.write("messages/first.csv", MESSAGES[60:][["text", "id"]])
    assert anew(target) == ["first.csv"]
    assert set(files(target)) == {"b/second.parquet", "first.csv.parquet"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1 and nothing more", "cannot be read as parquet: Parquet magic bytes not found"),
        (pd.DataFrame({"id": ["a"], "txt": ["b"]}), "no column 'text' (ingest.text_column): did you mean 'txt'?"),
        (pd.DataFrame({"id": ["a", "b"], "text": ["", " "]}), "2 of 2 rows are malformed, 100.0%, more than 50.0%"),
    ],
)
def test_a_malformed_file_is_named_and_costs_no_other(
    ready: Project, target: Target, content: bytes | pd.DataFrame, said: str
) -> None:
    ready.write("messages/a.parquet", MESSAGES[:9][["text", "id"]])
    assert len(anew(target)) == 3
    ready.write("messages/a.parquet", content)
    results = score(target)
    wrong = results.pop("a.parquet")
    assert wrong["error"].startswith(str(ready.folder / "messages/a.parquet") + ": ")
    assert said in wrong["error"]
    assert [result["error"] for result in results.values()] == ["", ""]
    assert {"b/second.parquet", "first.csv.parquet"} == {name for name in files(target) if not name.startswith("_")}


def test_scores_of_a_file_that_is_gone_are_named(ready: Project, target: Target) -> None:
    assert len(anew(target)) == 2
    _, rows = work(str(Path("messages").resolve()), target)
    assert orphans(target, rows) == []
    assert orphans(target, [row for row in rows if row["name"] == "first.csv"]) == ["b/second.parquet"]


def test_the_largest_files_come_first(ready: Project) -> None:
    ready.write("messages/large.jsonl", pd.concat([MESSAGES] * 5))
    _, rows = work("messages", Target(fsspec.filesystem("memory"), "/scores"))
    assert [row["name"] for row in rows] == ["large.jsonl", "b/second.parquet", "first.csv"]


@pytest.mark.parametrize("name", ["messages", "messages/b", "messages/scores"])
def test_scores_are_never_taken_for_messages(ready: Project, name: str) -> None:
    with pytest.raises(UserError, match=r"scores there would be read as messages; name a folder outside"):
        work(str(ready.folder / "messages"), Target(*fsspec.core.url_to_fs(str(ready.folder / name))))
    for fine in ("messages_scored", "messages/_scored"):
        work(str(ready.folder / "messages"), Target(*fsspec.core.url_to_fs(str(ready.folder / fine))))


def test_two_files_do_not_share_a_place(ready: Project) -> None:
    ready.write("messages/first.csv.parquet", MESSAGES)
    with pytest.raises(UserError, match=r"its scores would replace those of .*first\.csv"):
        work("messages", Target(fsspec.filesystem("memory"), "/scores"))


def started(ready: Project, **given: Any) -> str:
    """The error of a command that cannot begin."""
    arguments = {"source": "messages", "target": "scores", "address": None, "workers": None, "gpus": 0}
    return ready.stage_here("score_folder", **{**arguments, **given}).error


def test_what_cannot_begin_says_why(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--workers is 0" in started(ready, workers=0)
    assert "no such file" in started(ready, source="nowhere")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "`make nodes` installs it" in started(ready)
    assert not Path("scores").exists()


@needs_ray
def test_a_cluster_that_does_not_answer_is_named_at_once(ready: Project) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"no Ray cluster answers at {address}: " in started(ready, address=address)


@pytest.mark.slow
@needs_ray
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_ray_has_and_torch_has_not_is_not_replaced_by_the_processor(ready: Project) -> None:
    # Ray believes what it is told.
    done = ready.stage("score_folder", "messages", "scores", "--gpus", "1", RAY_OVERRIDE_RESOURCES='{"GPU": 1}')
    assert done.code == 1
    assert done.stderr.count("requested GPUs: 1, but torch sees 0") == len(PARTS)
    assert written(ready) == {}


# Real ones, on a cluster of this machine's cores.


@pytest.fixture
def many(ready: Project) -> list[str]:
    """Messages in files that take a worker seconds each, one of them corrupted: the names of the good ones."""
    names = [f"part-{number}.parquet" for number in range(6)]
    for number, name in enumerate(names):
        part = corpus({"ham": 600, "spam": 300}, seed=number)
        long = pd.concat([part] * 90, ignore_index=True)
        # Every text once, so that repeats save no time.
        long["text"] += [f" {row}" for row in range(len(long))]
        ready.write(f"messages/{name}", long[["text"]].assign(id=[f"{number}-{row}" for row in range(len(long))]))
    whole = (ready.folder / "messages" / names[0]).read_bytes()
    ready.write("messages/corrupted.parquet", whole[: len(whole) // 2])
    return [*names, *PARTS]


def begin(ready: Project, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.production.score_folder", "messages", "scores", *arguments]
    env = ready.environment | {"PYTHONPATH": str(ready.code)}
    return subprocess.Popen(command, cwd=ready.folder, env=env, stderr=subprocess.PIPE, text=True)


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def at_work(ready: Project, pid: int) -> dict[str, psutil.Process]:
    """The workers of a command, by the name of the file whose scores they write just now."""
    found = {}
    for process in family(pid):
        try:
            paths = [Path(each.path) for each in process.open_files()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for path in paths:
            if path.is_relative_to(ready.folder / "scores") and (name := re.match(r"\.(.+)\.[^.]+\.partial$", path.name)):
                found[name[1]] = process
    return {name: process for name, process in found.items() if name.endswith(".parquet")}


def written(ready: Project) -> dict[str, int]:
    """The files with scores, and when they were written."""
    folder = ready.folder / "scores"
    found = (path for path in folder.rglob("*.parquet") if not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
@needs_ray
def test_every_file_is_scored_once_whatever_is_killed(ready: Project, many: list[str]) -> None:
    with begin(ready, "--workers", "2") as child:
        eventually(lambda: written(ready) and len(at_work(ready, child.pid)) == 2, 180)
        workers = [process for process in family(child.pid) if "MapWorker" in process.name()]
        child.kill()
        # They do not outlive the command.
        assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert len(workers) == 2
    before = written(ready)
    assert 0 < len(before) < len(many)

    with begin(ready, "--workers", "2") as child:
        name, worker = eventually(lambda: next(iter(at_work(ready, child.pid).items()), None), 180)
        worker.send_signal(signal.SIGKILL)
        assert name not in before
        assert child.stderr is not None
        said = child.stderr.read()
    assert child.returncode == 1, said
    *_, summary, error = said.splitlines()
    assert error.startswith("error: 1 of 9 files have no scores: ")
    assert "messages/corrupted.parquet" in error
    assert "Traceback" not in said
    assert f"{len(many)} files scored with version 0001, {len(many) - len(before)} files in this run" in summary
    now = written(ready)
    assert {each: now[each] for each in before} == before, "what had its scores was left as it was"
    assert list((ready.folder / "scores").rglob("*.partial")) == []

    (ready.folder / "messages/corrupted.parquet").unlink()
    done = ready.stage("score_folder", "messages", "scores")
    assert done.code == 0, done.stderr
    assert "0 files in this run" in done.stderr
    assert written(ready) == now
    assert ready.stage("score", "messages", "--window", "w").code == 0
    window = pd.read_parquet("production/scored/w.parquet").set_index("id").sort_index()
    folder = pd.concat([pd.read_parquet(f"scores/{each}") for each in now]).set_index("id").sort_index()
    pd.testing.assert_frame_equal(folder, window)


@pytest.mark.slow
@needs_ray
def test_a_file_that_kills_its_workers_is_named_and_the_others_are_scored(ready: Project, many: list[str]) -> None:
    for name in many[:-3]:
        (ready.folder / "messages" / name).unlink()
    (ready.folder / "messages/corrupted.parquet").unlink()
    (killer, *others) = many[-3:]
    killed = set()
    with begin(ready, "--workers", "2") as child:
        while child.poll() is None:
            if worker := at_work(ready, child.pid).get(killer):
                worker.kill()
                killed.add(worker.pid)
            time.sleep(0.05)
        assert child.stderr is not None
        said = child.stderr.read()
    assert child.returncode == 1, said
    assert len(killed) == TRIES
    assert f"{killer}: {TRIES} workers were killed while they scored it" in said
    assert said.splitlines()[-1].startswith("error: 1 of 3 files have no scores: ")
    assert set(written(ready)) == {output_name(name) for name in others}
