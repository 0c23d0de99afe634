"""The loop closes: traffic is replayed on a real server and worker, and a shift is answered by training, or by correcting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.flow_fixtures import eventually
from tests.project import Outcome, Project, corpus, project_copy
from tests.serve_fixtures import Served, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project whose pipeline has run, and labelled messages that it has not seen."""
    project = project_copy(tmp_path_factory.mktemp("production"), quick_python)
    project.write("messages.csv", corpus({"ham": 2000, "spam": 300}))
    # Numbers that no training message ends with, as those of held-out messages; else the traffic would fit no prior.
    traffic = corpus({"ham": 2500, "spam": 600}, seed=1)
    numbered = traffic["text"].str.replace(r"\d+$", lambda number: str(int(number[0]) + 50_000), regex=True)
    project.write("traffic.csv", traffic.assign(text=numbered))
    project.edit(
        {
            "ingest.source": "file",
            "ingest.path": "messages.csv",
            "techniques": {"tfidf": {}},
            "evaluate.resamples": 100,
            "production.retrain.margin": 0.1,
        }
    )
    project.repro()
    return project


@pytest.fixture(scope="module")
def running(built: Project) -> Iterator[Served]:
    with served(built.folder) as started:
        yield started


def replay(running: Served, built: Project, *arguments: str) -> Outcome:
    command = [sys.executable, "-m", "flows.replay", "--size", "600", "--source", "traffic.csv", *arguments]
    return built.run(*command, **running.server.environment, **running.environment)


def deployed(built: Project) -> dict[str, Any]:
    version = read_json(built.folder / PROJECT.deployed / "current.json")["version"]
    return dict(read_json(built.folder / PROJECT.deployed / version / "manifest.json"))


def test_a_shift_without_labels_is_corrected_and_trains_nothing(running: Served, built: Project) -> None:
    done = replay(running, built, "--schedule", "0.13,0.13,0.40", "--labelled", "0")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == ["0.13 steady", "0.13 steady", "0.40 reprior"]
    found = read_json(built.folder / PROJECT.watch / "replay-03.json")
    assert found["low"]["spam"] < 0.4 < found["high"]["spam"]
    assert "a retraining needs 20 new labels of each class" in found["reasons"][-1]
    assert deployed(built)["production_prior"] == found["estimated_prior"]
    assert (deployed(built)["reason"], deployed(built)["window"]) == ("reprior", "replay-03")
    assert "Evidently" in (built.folder / PROJECT.watch / "replay-03.html").read_text()
    assert "replay-03" in (built.folder / PROJECT.watch / "index.html").read_text()
    assert running.runs("retrain") == []


def test_a_shift_with_labels_is_retrained_once_by_its_event(running: Served, built: Project) -> None:
    # The selected model is older than the corrected one, which a replay does not replace.
    back = built.run(sys.executable, "-m", "flows.promote", "--rollback", **running.server.environment, **running.environment)
    assert back.code == 0, back.stderr
    done = replay(running, built, "--schedule", "0.13,0.13,0.40", "--labelled", "0.5")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == ["0.13 steady", "0.13 steady", "0.40 retrain"]
    (run,) = running.runs("retrain")
    assert run["deployment_id"] == running.deployment("retrain")["id"]
    assert running.ends(run["id"]) == "COMPLETED"
    decision = read_json(built.folder / PROJECT.retrain / "replay-03/decision.json")
    assert (decision["decision"], decision["brought_home"]) == ("promoted", True), decision
    assert decision["feedback"] > 400
    assert sum(decision["test_from_feedback"].values()) > 50
    assert not (built.folder / PROJECT.retrain / "replay-03/worktree").exists()
    estimated = read_json(built.folder / PROJECT.watch / "replay-03.json")["estimated_prior"]
    assert (deployed(built)["reason"], deployed(built)["production_prior"]) == ("retrain", pytest.approx(estimated))
    # The same event once more, and by hand: it has been decided.
    labels = {"ballast.decision": "retrain", "ballast.window": "replay-03"}
    running.emit("class-prior.shifted", labels, window="replay-03")
    (again,) = eventually(lambda: [each for each in running.runs("retrain") if each["id"] != run["id"]])
    assert running.ends(again["id"]) == "COMPLETED"

    def messages() -> str:
        logs = running.server.all("logs", logs={"flow_run_id": {"any_": [again["id"]]}})
        return "\n".join(each["message"] for each in logs)

    eventually(lambda: "has been decided: promoted" in messages())
    # Those of its schedule wait for their day.
    assert len([run for run in running.runs("pipeline") if run["state_type"] != "SCHEDULED"]) == 1


def test_after_a_retraining_there_is_nothing_to_run_and_a_replay_goes_on_with_its_version(
    running: Served, built: Project
) -> None:
    assert built.repro() == set()
    version = deployed(built)["version"]
    done = replay(running, built, "--schedule", "0.40", "--labelled", "0")
    assert (done.code, done.stdout.splitlines()) == (0, ["0.40 steady"]), done.stderr
    assert deployed(built)["version"] == version
