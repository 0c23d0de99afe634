"""Production with real processes that are killed or started twice: nothing is lost and nothing is there twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.deployed import traffic
from tests.flow_fixtures import Server, eventually, prefect_server
from tests.project import Outcome, Project, project_with_window, ran

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project with a deployed model, a window of another prior, and its labels, not yet delivered."""
    project = project_with_window(tmp_path_factory.mktemp("faults"), quick_python)
    project.edit(
        {
            "techniques": {"tfidf": {}, "majority": {}, "weak": {"technique": "tfidf", "C": 0.01}},
            "production.retrain.margin": 0.2,
        }
    )
    project.repro()
    for command in (["promote"], ["score", "incoming/w1.csv", "--window", "w1"]):
        assert (done := project.run("python", "-m", f"stages.production.{command[0]}", *command[1:])).code == 0, done.stderr
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    shutil.copytree(built.folder, folder, symlinks=True)
    return Project(folder, folder, built.environment | {"DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture
def told(project: Project) -> Iterator[list[dict[str, Any]]]:
    """What the webhook is told."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        project.edit({"production.webhook": f"http://127.0.0.1:{listening.server_port}"})
        yield received
        listening.shutdown()
        thread.join()


def flow(project: Project, server: Server, name: str, *arguments: str) -> Outcome:
    return project.run(sys.executable, "-m", f"flows.{name}", *arguments, **server.environment)


def processes(folder: Path) -> list[psutil.Process]:
    """All processes that are at work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def killed(project: Project, server: Server, when: Callable[[], bool], name: str, *arguments: str) -> None:
    """Start a flow, and kill it with all that it started at a moment."""
    env = project.environment | {"PYTHONPATH": str(project.code)} | server.environment
    command = [sys.executable, "-m", f"flows.{name}", *arguments]
    with (project.folder / "killed.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=project.folder, env=env, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 600
    try:
        while not when():
            assert child.poll() is None and time.monotonic() < deadline, (project.folder / "killed.log").read_text()
            time.sleep(0.002)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        # Commands have groups of their own.
        while left := processes(project.folder):
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            time.sleep(0.05)
    assert child.wait(timeout=300) == -signal.SIGKILL


def events(server: Server, event: str, resource: str) -> list[dict[str, Any]]:
    """What was told of a resource."""
    wanted = {"event": {"name": [event]}, "resource": {"id": [resource]}}
    answer = httpx.post(f"{server.url}/events/filter", json={"filter": wanted}, timeout=30)
    answer.raise_for_status()
    return list(answer.json()["events"])


def versions(project: Project) -> list[str]:
    """The versions on the disk; every switch led to another one."""
    history = read_json(project.folder / PROJECT.deployed / "current.json")["history"]
    found = sorted(path.name for path in (project.folder / PROJECT.deployed).glob("[0-9]*"))
    assert [entry["version"] for entry in history] == found
    return found


def leftovers(project: Project) -> list[str]:
    """Half-written files and folders."""
    return [str(path) for path in (project.folder / "production").rglob("*.partial")]


def worktrees(project: Project) -> list[str]:
    listed = project.run("git", "worktree", "list", "--porcelain").stdout
    return [line for line in listed.splitlines() if line.startswith("worktree ")][1:]


def deliver(project: Project) -> None:
    target = project.folder / "production/labels/w1.csv"
    target.parent.mkdir(parents=True)
    shutil.copy(project.folder / "labels.csv", target)


def test_a_window_that_nobody_scored_is_told_of(project: Project, server: Server, told: list[dict[str, Any]]) -> None:
    done = flow(project, server, "watch", "--window", "nowhere")
    assert done.error == (
        "error: stage watch failed with exit code 1: production/scored/nowhere.parquet: no such window;"
        " `python -m flows.score SOURCE --window nowhere` scores it"
    )
    [event] = eventually(lambda: events(server, "window.missing", "ballast.window.nowhere"))
    assert event["payload"] == {"window": "nowhere"} and event["resource"]["ballast.window"] == "nowhere"
    assert [(each["event"], each["payload"]) for each in told] == [("window.missing", {"window": "nowhere"})]
    assert server.last_run()["state_type"] == "FAILED"
    assert not (project.folder / PROJECT.watch / "nowhere.json").exists()


def test_a_watch_that_is_killed_is_repeated_and_corrects_once(
    project: Project, server: Server, told: list[dict[str, Any]]
) -> None:
    page = project.folder / PROJECT.watch
    killed(project, server, lambda: (page / ".w1.html.lock").exists(), "watch", "--window", "w1")
    assert not (page / "w1.json").exists() and versions(project) == ["0001"]
    # Once more, in the middle of the deployment of the correction.
    killed(project, server, lambda: (project.folder / PROJECT.deployed / ".0002.partial").exists(), "watch", "--window", "w1")
    result = (page / "w1.json").read_bytes()
    assert read_json(page / "w1.json")["decision"] == "reprior"
    for _ in range(2):
        done = flow(project, server, "watch", "--window", "w1")
        assert done.code == 0, done.stderr
        assert versions(project) == ["0001", "0002"] and leftovers(project) == []
    assert (page / "w1.json").read_bytes() == result
    manifest = read_json(project.folder / PROJECT.deployed / "0002/manifest.json")
    assert (manifest["reason"], manifest["window"]) == ("reprior", "w1")
    assert manifest["production_prior"] == json.loads(result)["estimated_prior"]
    # The same event is one, however often it is told; it may be the killed run that told of the version.
    [event] = eventually(lambda: events(server, "class-prior.shifted", "ballast.window.w1"))
    assert event["resource"]["ballast.decision"] == "reprior"
    assert {each["event"] for each in told} == {"class-prior.shifted", "model.promoted"}


def test_a_retraining_that_is_killed_goes_on_and_promotes_once(
    project: Project, server: Server, told: list[dict[str, Any]]
) -> None:
    deliver(project)
    for stage, arguments in (("feedback", []), ("watch", ["--window", "w1"])):
        assert (done := project.run("python", "-m", f"stages.production.{stage}", *arguments)).code == 0, done.stderr
    assert read_json(project.folder / PROJECT.watch / "w1.json")["decision"] == "retrain"
    home = project.folder / PROJECT.retrain / "w1"
    cache = project.folder / ".dvc/cache"

    def trains() -> bool:
        """Whether the checkout's pipeline is at its training."""
        with contextlib.suppress(psutil.Error):
            return any("stages.train" in process.cmdline() for process in processes(home / "worktree"))
        return False

    killed(project, server, trains, "retrain", "--window", "w1")
    assert versions(project) == ["0001"] and not (home / "decision.json").exists()
    prepared, stored = (home / "prepared.json").read_bytes(), {path for path in cache.rglob("*") if path.is_file()}
    current = project.folder / PROJECT.deployed / "current.json"
    killed(project, server, lambda: read_json(current)["version"] == "0002", "retrain", "--window", "w1")
    log = (project.folder / "killed.log").read_text()
    assert "train@tfidf-0" in ran(log) and not {"ingest", "validate", "techniques"} & ran(log), "what was done is not repeated"
    assert (home / "prepared.json").read_bytes() == prepared and stored <= set(cache.rglob("*"))
    assert not (home / "decision.json").exists() and len(worktrees(project)) == 1
    # Somebody edits the settings before its result is brought home.
    params = project.folder / "params.yaml"
    settings = params.read_bytes()
    params.write_bytes(settings + b"# Mine.\n")
    done = flow(project, server, "retrain", "--window", "w1")
    assert (done.code, done.stdout.strip().splitlines()[-1]) == (0, "promoted"), done.stderr
    assert ran(done.stderr) == set(), "nothing is trained again"
    assert versions(project) == ["0001", "0002"] and leftovers(project) == []
    decision = read_json(home / "decision.json")
    assert [decision[key] for key in ("version", "brought_home", "in_the_way")] == ["0002", False, ["params.yaml"]]
    assert params.read_bytes() == settings + b"# Mine.\n"
    assert worktrees(project) == [] and not (home / "worktree").exists()
    # Killed between the switch and its announcement, it is announced by the next run: rather twice than never.
    assert 1 <= [each["event"] for each in told].count("model.promoted") <= 2

    # The old model is not promoted; once the edit is gone, the result is brought home and there is nothing to do.
    refused = flow(project, server, "promote").error
    assert "0002 stays deployed. `python -m stages.production.retrain bring-home w1` brings the result" in refused
    params.write_bytes(settings)
    done = project.run("python", "-m", "stages.production.retrain", "bring-home", "w1")
    assert done.code == 0 and "w1 is brought home: production.prior is ham" in done.stderr, done.stderr
    assert project.repro() == set()
    assert set(read_json(project.folder / PROJECT.leaderboard)["techniques"]) == {"tfidf"}
    done = flow(project, server, "promote")
    assert (done.code, done.stdout.strip().splitlines()[-1]) == (0, "0002"), done.stderr
    decision = (home / "decision.json").read_bytes()
    assert json.loads(decision)["brought_home"] is True
    # More of the same traffic asks for nothing.
    project.write("incoming/w2.csv", traffic({"ham": 240, "spam": 160}, seed=2)[["id", "text"]])
    done = project.run("python", "-m", "stages.production.score", "incoming/w2.csv", "--window", "w2")
    assert done.code == 0, done.stderr
    assert (done := flow(project, server, "watch", "--window", "w2")).code == 0, done.stderr
    assert read_json(project.folder / PROJECT.watch / "w2.json")["decision"] == "steady"

    # The same event once more: it is decided. A late one of another key: it is answered already.
    done = flow(project, server, "retrain", "--window", "w1")
    assert (done.code, done.stdout.strip().splitlines()[-1]) == (0, "promoted"), done.stderr
    assert "w1 has been decided: promoted" in done.stderr
    done = flow(project, server, "retrain", "--window", "w1", "--key", "late")
    assert (done.code, done.stdout.strip().splitlines()[-1]) == (0, "outdated"), done.stderr
    assert (home / "decision.json").read_bytes() == decision
    assert versions(project) == ["0001", "0002"] and worktrees(project) == []
    assert project.run("git", "status", "--porcelain", "--", "stages", "flows").stdout == ""
