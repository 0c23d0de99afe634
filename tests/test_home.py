"""What a promoted retraining brings home: one truth about the deployed model, also with edits in the way and who is killed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from flows.replay import delete_retraining

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import stages.production.watch  # noqa: F401
from stages.production import home as home_module
from stages.production.home import EDITED, sha256
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.deployed import label, promote, score, selected_project, traffic, watch
from tests.project import Outcome, Project, copied

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

SHIFTED = {"ham": 240, "spam": 160}
KEPT = PROJECT.retrain / "w1"


def done(outcome: Outcome) -> str:
    """What a step that succeeds says."""
    assert outcome.code == 0, outcome.stderr
    return outcome.stderr


def step(project: Project, name: str, key: str = "w1", **given: Any) -> Outcome:
    return project.stage_here("production.retrain", step=name, key=key, **{"window": key, "version": None, **given})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project whose retraining of one of three techniques is deployed, but not brought home."""
    entries = {"majority": {}, "tfidf": {}, "weak": {"technique": "tfidf", "C": 0.01}}
    changes = {"techniques": entries, "production.retrain.margin": 1.0, "report.sample": 100}
    project = selected_project(tmp_path_factory.mktemp("home"), quick_python, {"ham": 900, "spam": 150}, **changes)
    assert promote(project) == "0001"
    assert read_json(project.folder / PROJECT.deployed / "0001/manifest.json")["technique"] == "tfidf"
    score(project, "w1", traffic(SHIFTED))
    label(project, "w1", traffic(SHIFTED))
    assert watch(project, "w1")["decision"] == "retrain"
    with pytest.MonkeyPatch.context() as patched:
        for name, value in project.environment.items():
            patched.setenv(name, value)
        done(step(project, "prepare"))
    worktree = project.folder / KEPT / "worktree"
    Project(worktree, worktree, project.environment).repro()
    done(step(project, "challenge"))
    assert promote(project, source=worktree, reason="retrain", window="w1") == "0002"
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return copied(built, tmp_path / "project", monkeypatch)


def params(folder: Path) -> Any:
    return YAML(typ="safe", pure=True).load((folder / "params.yaml").read_text())


def files_here(project: Project) -> dict[str, str | None]:
    """The sha256 of the checkout's files, without production."""
    places = [path for path in project.folder.iterdir() if path.name not in (".git", ".dvc", "production")]
    files = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file()]
    return {str(path): sha256(path) for path in files}


def test_the_result_of_a_promoted_retraining_is_that_of_this_checkout(project: Project) -> None:
    told = done(step(project, "bring-home"))
    assert "w1 is brought home: production.prior is ham 0." in told and "2 entries of techniques are comments" in told
    assert told.strip().endswith(
        "Commit data/feedback.parquet, params.yaml, reports/claims.json, reports/leaderboard.json, dvc.lock"
    )
    assert "the result of w1 is here" in done(step(project, "bring-home"))
    found = params(project.folder)
    manifest = read_json(project.folder / PROJECT.deployed / "0002/manifest.json")
    assert found["production"]["prior"] == manifest["production_prior"] and list(found["techniques"]) == ["tfidf"]
    assert "  # majority: {}\n" in (project.folder / "params.yaml").read_text()
    assert list(read_json(project.folder / PROJECT.leaderboard)["techniques"]) == ["tfidf"]
    assert not any(path.is_symlink() for path in (project.folder / KEPT / "home").rglob("*"))
    assert len(pd.read_parquet(project.folder / PROJECT.feedback)) == 400
    assert project.repro() == set(), "there is nothing to do"
    again = project.stage_here("production.promote", **PROMOTE)
    assert (again.code, again.stdout) == (0, "0002\n") and "already deployed as 0002" in again.stderr
    done(step(project, "conclude", version="0002"))
    decision = read_json(project.folder / KEPT / "decision.json")
    assert (decision["decision"], decision["brought_home"], decision["in_the_way"]) == ("promoted", True, [])
    # The same traffic again asks for nothing, and what is known is not fed twice to the next retraining.
    score(project, "w2", traffic(SHIFTED, seed=2))
    assert watch(project, "w2")["decision"] == "steady"
    label(project, "w2", traffic(SHIFTED, seed=2))
    assert watch(project, "w2")["new_labels"] == SHIFTED
    done(step(project, "prepare", key="w2", window=None))
    feedback = pd.read_parquet(project.folder / PROJECT.retrain / "w2/worktree" / PROJECT.feedback)
    assert len(feedback) == 800 and not feedback.duplicated(["id", "text"]).any()


PROMOTE = {
    "source": Path(),
    "reason": "promote",
    "window": None,
    "reprior": None,
    "rollback": False,
    "listing": False,
    "dry_run": False,
    "only": None,
}


def append(name: str, text: str) -> Callable[[Project], Any]:
    def change(project: Project) -> None:
        with (project.folder / name).open("a") as file:
            file.write(text)

    return change


def another_feedback(project: Project) -> None:
    row = {"id": ["mine"], "text": ["a message of mine"], "label": ["ham"], "split": ["train"]}
    project.write(str(PROJECT.feedback), pd.DataFrame(row))


def another_commit(project: Project) -> None:
    append("ballast/models/heads.py", "# Changed.\n")(project)
    as_somebody = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    project.run("git", *as_somebody, "commit", "--quiet", "--no-verify", "-m", "Another", "ballast")


EDITS: dict[str, tuple[Callable[[Project], Any], str]] = {
    "params": (append("params.yaml", "# Mine.\n"), "params.yaml"),
    "a missing file": (lambda project: (project.folder / PROJECT.feedback).unlink(), "data/feedback.parquet"),
    "feedback": (another_feedback, "data/feedback.parquet"),
    "a lock": (append("dvc.lock", "stages: {}\n"), "dvc.lock"),
    "code": (append("stages/train.py", "# Mine.\n"), "stages/train.py"),
    "new code": (append("ballast/techniques/mine.py", "# Mine.\n"), "ballast/techniques/mine.py"),
    "another commit": (another_commit, "ballast/models/heads.py"),
}


@pytest.mark.parametrize("case", EDITS)
def test_what_was_edited_here_is_not_overwritten_and_the_old_model_not_promoted(project: Project, case: str) -> None:
    change, name = EDITS[case]
    change(project)
    before = files_here(project)
    command = "`python -m stages.production.retrain bring-home w1`"
    error = step(project, "bring-home").error
    assert f"is deployed, but not brought home: {name} changed here since it began; nothing was overwritten" in error
    assert command in error and "with --force its files replace yours, which are saved in production/retrain/w1/former" in error
    assert name in done(step(project, "bring-home", unless_edited=True))
    done(step(project, "conclude", version="0002"))
    decision = read_json(project.folder / KEPT / "decision.json")
    assert (decision["brought_home"], decision["in_the_way"]) == (False, [name])
    assert files_here(project) == before
    if case not in ("params", "feedback"):
        return
    refused = project.stage_here("production.promote", **PROMOTE).error
    assert "0002 stays deployed" in refused and command in refused
    # The checkout of the retraining is gone, what it found is not.
    assert not (project.folder / KEPT / "worktree").exists()
    said = done(step(project, "bring-home", force=True))
    assert "w1 is brought home" in said
    decision = read_json(project.folder / KEPT / "decision.json")
    assert (decision["brought_home"], decision["in_the_way"]) == (True, [])
    former = [path.name for path in (project.folder / KEPT).glob("former/*/*")]
    assert former == ([Path(name).name] if name in map(str, EDITED) else [])
    assert "already deployed as 0002" in project.stage_here("production.promote", **PROMOTE).stderr


def test_params_that_were_merged_stay(project: Project) -> None:
    prior = read_json(project.folder / KEPT / "prepared.json")["prior"]
    project.edit({"report.mistakes": 7})
    assert "params.yaml changed here" in step(project, "bring-home").error
    project.edit({"production.prior": prior})
    text = (project.folder / "params.yaml").read_bytes()
    done(step(project, "bring-home"))
    assert (project.folder / "params.yaml").read_bytes() == text and set(params(project.folder)["techniques"]) > {"tfidf"}
    assert len(pd.read_parquet(project.folder / PROJECT.feedback)) == 400
    assert (project.folder / "dvc.lock").read_bytes() == (project.folder / KEPT / "home/dvc.lock").read_bytes()


def test_the_next_replay_keeps_what_waits_to_be_brought_home(project: Project) -> None:
    EDITS["params"][0](project)
    done(step(project, "bring-home", unless_edited=True))
    done(step(project, "conclude", version="0002"))
    with contextlib.chdir(project.folder):
        delete_retraining(KEPT)
        [waits] = PROJECT.retrain.glob("waiting-*")
    assert not (project.folder / KEPT).exists() and waits.name.endswith("-w1")
    assert f"bring-home {waits.name}`" in project.stage_here("production.promote", **PROMOTE).error
    assert "is brought home" in done(step(project, "bring-home", key=waits.name, force=True))
    with contextlib.chdir(project.folder):
        delete_retraining(waits)
        assert not waits.exists()


def test_whoever_is_killed_while_it_is_brought_home_leaves_what_a_repetition_completes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = {path: sha256(project.folder / path) for path in EDITED}
    calls = 0

    def dies_at(number: int) -> None:
        """Die before the call of that number of what writes, and leave half a temporary file."""
        for name in ("pack", "take", "checkout", "prune_outputs", "note"):
            function = getattr(original, name)

            def counted(*arguments: Any, function: Callable[..., Any] = function, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == number:
                    raise SystemExit(9)
                return function(*arguments, **options)

            monkeypatch.setattr(home_module, name, counted)

    moments, original = 0, SimpleNamespace(**vars(home_module))
    while True:
        calls = 0
        dies_at(moments + 1)
        outcome = step(project, "bring-home")
        for path, before in began.items():
            kept = sha256(project.folder / KEPT / "home" / path)
            assert sha256(project.folder / path) in (before, kept), path
        if outcome.code == 0:
            break
        assert outcome.code == 9, outcome.stderr
        moments += 1
    # A repetition without the packing, which is done by then: each file, the checkout, the pruning and the note.
    with contextlib.chdir(project.folder):
        assert moments == len(home_module.files_of(KEPT / "home")) + 3
    assert read_json(project.folder / KEPT / "home.json") == {"brought_home": True, "in_the_way": []}
    assert list(project.folder.rglob("*.partial")) == []
    assert project.repro() == set()


def test_only_the_result_of_the_deployed_version_is_brought_home(project: Project) -> None:
    assert promote(project, rollback=True) == "0001"
    before = files_here(project)
    assert (
        "the deployed version 0001 does not come from this retraining; nothing was brought home"
        in step(project, "bring-home").error
    )
    assert "the deployed version 0001 does not come from this retraining" in step(project, "bring-home", key="none").error
    assert files_here(project) == before
