"""The steps of a retraining: its checkout, the challenge on messages that are new to both, the decision, what is refused."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from ballast.data.near_duplicates import fingerprints
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from flows.retrain import retrain

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import stages.production.watch  # noqa: F401
from stages.store.checked import read_arrays, write_arrays, write_table
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.deployed import VALIDATION, label, promote, score, selected_project, traffic, watch
from tests.project import Outcome, Project, copied

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

SHIFTED = {"ham": 240, "spam": 160}
WORKTREE = PROJECT.retrain / "w1/worktree"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project with a deployed model and a watched window of another prior, all of whose messages are labelled."""
    project = selected_project(tmp_path_factory.mktemp("retrain"), quick_python, {"ham": 900, "spam": 150})
    promote(project)
    score(project, "w1", traffic(SHIFTED))
    label(project, "w1", traffic(SHIFTED))
    assert watch(project, "w1")["decision"] == "retrain"
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return copied(built, tmp_path / "project", monkeypatch)


def step(
    project: Project, name: str, key: str = "w1", window: str | None = "w1", version: str | None = None, **given: Any
) -> Outcome:
    return project.stage_here("production.retrain", step=name, key=key, window=window, version=version, **given)


def done(outcome: Outcome) -> str:
    """What a step that succeeds says."""
    assert outcome.code == 0, outcome.stderr
    return outcome.stderr


def trained(project: Project) -> Project:
    """The checkout after its pipeline, of which only that runs here which the challenge needs."""
    checkout = Project(project.folder / WORKTREE, project.folder / WORKTREE, project.environment)
    checkout.write(str(PROJECT.validation), VALIDATION)
    for stage in ("ingest", "search", "techniques", "resample", "train", "evaluate", "probe", "compare", "select"):
        entry = {"name": "tfidf"} if stage in ("resample", "train", "evaluate") else {}
        for seed in ({"seed": 0}, {"seed": 1}) if stage in ("resample", "train") else ({},):
            done(checkout.stage_here(stage, **entry, **seed))
    return checkout


def worktrees(project: Project) -> list[str]:
    """The checkouts that git knows besides the project's own."""
    told = project.run("git", "worktree", "list", "--porcelain").stdout
    return [line for line in told.splitlines() if line.startswith("worktree ")][1:]


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but for git's."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def splits(folder: Path) -> dict[int, str]:
    """The split of each group of near duplicates."""
    table = pd.read_parquet(folder / PROJECT.messages)
    groups = fingerprints(pa.chunked_array([pa.array(table["text"], pa.large_string())]), masked=True)
    return dict(zip(groups.tolist(), table["split"].tolist(), strict=True))


def test_the_checkout_has_the_windows_prior_all_labels_and_what_git_does_not_track(project: Project) -> None:
    project.edit(
        {
            "techniques": {"tfidf": {}, "baseline": {}, "focal": {}},
            "search.spaces": {"focal": {"gamma": {"low": 1.0, "high": 2.0}}},
        }
    )
    assert "labelled messages from feedback" in done(step(project, "prepare"))
    checkout = project.folder / WORKTREE
    params = YAML(typ="safe", pure=True).load((checkout / "params.yaml").read_text())
    assert params["production"]["prior"] == read_json(project.folder / PROJECT.watch / "w1.json")["estimated_prior"]
    assert (set(params["techniques"]), params["search"]["spaces"], params["search"]["trials"]) == ({"tfidf", "baseline"}, {}, 0)
    assert (checkout / "messages.csv").resolve() == project.folder / "messages.csv"
    feedback = pd.read_parquet(project.folder / PROJECT.production / "feedback.parquet").query("new")
    brought = pd.read_parquet(checkout / "data/feedback.parquet")
    assert brought.equals(feedback[["id", "text", "label", "split"]].reset_index(drop=True)) and len(brought) > 380
    config = (checkout / ".dvc/config.local").read_text()
    assert str(project.folder / ".dvc/cache") in config
    assert (checkout / "dvc.yaml").exists() and not (checkout / "production").exists()
    prepared = read_json(project.folder / PROJECT.retrain / "w1/prepared.json")
    base = prepared.pop("base")
    assert (base["left_out"], base["deleted"]) == (["focal"], False)
    assert base["files"]["params.yaml"] == file_sha256(project.folder / "params.yaml")
    assert prepared == {
        "window": "w1",
        "prior": params["production"]["prior"],
        "shifted": True,
        "feedback": len(brought),
        "champion": "0001",
    }
    # All techniques where params say so.
    project.edit({"production.retrain.techniques": "all"})
    done(step(project, "prepare", key="again"))
    params = YAML(typ="safe", pure=True).load((project.folder / PROJECT.retrain / "again/worktree/params.yaml").read_text())
    assert set(params["techniques"]) == {"tfidf", "baseline", "focal"}


def test_without_a_window_the_deployed_prior_stays(project: Project) -> None:
    done(step(project, "prepare", key="by-hand", window=None))
    prepared = read_json(project.folder / PROJECT.retrain / "by-hand/prepared.json")
    assert (prepared["window"], prepared["shifted"]) == (None, False)
    assert prepared["prior"] == read_json(project.folder / PROJECT.deployed / "0001/manifest.json")["production_prior"]


def test_where_recall_fell_the_deployed_prior_stays_too(project: Project) -> None:
    watched = read_json(project.folder / PROJECT.watch / "w1.json")
    assert watched["recall_fell"] == []
    project.write(f"{PROJECT.watch}/w1.json", watched | {"recall_fell": ["spam"]})
    done(step(project, "prepare"))
    prepared = read_json(project.folder / PROJECT.retrain / "w1/prepared.json")
    assert (prepared["window"], prepared["shifted"]) == ("w1", False)
    assert prepared["prior"] == read_json(project.folder / PROJECT.deployed / "0001/manifest.json")["production_prior"]


def test_a_better_challenger_is_found_on_messages_that_neither_was_trained_on(project: Project) -> None:
    # Any margin will do: what is looked at is on what they are compared.
    project.edit({"production.retrain.margin": 1.0})
    done(step(project, "prepare"))
    before = tree(project.folder / PROJECT.retrain / "w1")
    assert "continuing in" in done(step(project, "prepare"))
    assert tree(project.folder / PROJECT.retrain / "w1") == before

    checkout = trained(project)
    old, new = splits(project.folder), splits(checkout.folder)
    assert {group: new[group] for group in old} == old, "what was in the data keeps its split"
    messages = pd.read_parquet(checkout.folder / PROJECT.messages)
    fed = messages[messages["source"] == "feedback"].set_index("text")["split"]
    frozen = pd.read_parquet(project.folder / PROJECT.production / "feedback.parquet").set_index("text")["split"]
    assert set(fed) == {"train", "test"} and fed.to_dict() == frozen[fed.index].to_dict()
    assert not {group for group, split in new.items() if split == "test"} & {
        group for group, split in old.items() if split != "test"
    }

    assert "not worse than the champion's" in done(step(project, "challenge"))
    found = read_json(project.folder / PROJECT.retrain / "w1/challenge.json")
    assert (found["champion"], found["not_worse"], found["left_out"], found["metric"]) == ("0001", True, 0, "macro_f1")
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["difference"] == pytest.approx(found["challenger_metric"] - found["champion_metric"])
    test = messages[messages["split"] == "test"]
    assert found["test"] == test["label"].value_counts().to_dict()
    assert found["test_from_feedback"] == test[test["source"] == "feedback"]["label"].value_counts().to_dict()
    done(step(project, "challenge"))
    assert read_json(project.folder / PROJECT.retrain / "w1/challenge.json") == found

    assert promote(project, source=checkout.folder, reason="retrain", window="w1") == "0002"
    result = project.folder / "result.json"
    assert "promoted, 0002 is deployed" in done(step(project, "conclude", version="0002", result=result))
    decision = read_json(project.folder / PROJECT.retrain / "w1/decision.json")
    assert read_json(result) == decision
    assert decision == {**found, "decision": "promoted", "version": "0002"}
    assert worktrees(project) == [] and not checkout.folder.exists()
    done(step(project, "conclude", version="0002"))
    assert read_json(project.folder / PROJECT.retrain / "w1/decision.json") == decision
    # What it was trained with is no longer new to it.
    score(project, "w2", traffic(SHIFTED, seed=2))
    found = watch(project, "w2")
    assert (found["model"], found["new_labels"], found["decision"]) == ("0002", {"ham": 0, "spam": 0}, "steady"), found


def spoilt(checkout: Project) -> None:
    """Logits of the challenger that call every message the other class."""
    path = checkout.folder / "logits/tfidf/0.npz"
    arrays = read_arrays(path)
    write_arrays(path, {**arrays, "test": -arrays["test"]})


def test_a_worse_challenger_is_kept_out_and_the_prior_answered_by_a_correction(project: Project) -> None:
    done(step(project, "prepare"))
    spoilt(trained(project))
    assert "not shown to be as good as the champion's" in done(step(project, "challenge"))
    assert promote(project, reprior="w1") == "0002"
    assert "kept, 0002 is deployed" in done(step(project, "conclude", version="0002"))
    assert read_json(project.folder / PROJECT.retrain / "w1/decision.json")["decision"] == "kept"
    manifest = read_json(project.folder / PROJECT.deployed / "0002/manifest.json")
    assert (manifest["reason"], manifest["production_prior"]["spam"]) == ("reprior", pytest.approx(0.4, abs=0.1))


def test_a_window_of_an_earlier_version_is_outdated_and_trains_nothing(project: Project) -> None:
    promote(project, reprior="w1")
    result = project.folder / "result.json"
    prepared = step(project, "prepare", result=result)
    assert "w1 was scored by 0001, but 0002 is deployed now; nothing to do" in done(prepared)
    assert read_json(result) == {"prepared": False}
    assert not (project.folder / PROJECT.retrain / "w1/decision.json").exists(), "the window may be scored again"
    assert worktrees(project) == [] and not (project.folder / WORKTREE).exists()


def killed_while_made(project: Project) -> None:
    """What git leaves of a checkout that it was making."""
    project.run("git", "worktree", "add", "--detach", str(WORKTREE), "HEAD")
    project.run("git", "worktree", "lock", "--reason", "initializing", str(WORKTREE))
    shutil.rmtree(project.folder / WORKTREE / "stages")


def killed_while_removed(project: Project) -> None:
    """What git leaves of a checkout that it was removing."""
    project.run("git", "worktree", "add", "--detach", str(WORKTREE), "HEAD")
    (project.folder / WORKTREE / ".git").unlink()


def a_folder(project: Project) -> None:
    project.write(f"{WORKTREE}/file", b"")


def removed_by_hand(project: Project) -> None:
    project.run("git", "worktree", "add", "--detach", str(WORKTREE), "HEAD")
    shutil.rmtree(project.folder / WORKTREE)


LEFT = {each.__name__: each for each in (killed_while_made, killed_while_removed, a_folder, removed_by_hand)}


@pytest.mark.parametrize("case", LEFT)
def test_what_a_killed_one_left_is_in_nobodys_way(project: Project, case: str) -> None:
    LEFT[case](project)
    done(step(project, "prepare"))
    assert len(worktrees(project)) == 1 and (project.folder / WORKTREE / "stages").is_dir()
    shutil.rmtree(project.folder / PROJECT.retrain / "w1")
    LEFT[case](project)
    project.write(f"{PROJECT.retrain}/w1/challenge.json", {"not_worse": True})
    done(step(project, "conclude", version="0001"))
    assert worktrees(project) == [] and not (project.folder / WORKTREE).exists()


def other_labels(project: Project) -> None:
    path = project.folder / WORKTREE / PROJECT.messages
    table = pd.read_parquet(path)
    write_table(path, table.assign(label=table["label"].replace("ham", "eggs")))


def test_labels_of_the_data_that_changed_are_one_readable_line(project: Project) -> None:
    done(step(project, "prepare"))
    trained(project)
    other_labels(project)
    assert "retrain/w1: its labels are eggs, spam, those deployed ham, spam" in step(project, "challenge").error


def test_messages_that_the_champion_may_know_are_left_out(project: Project) -> None:
    done(step(project, "prepare"))
    checkout = trained(project)
    path = project.folder / WORKTREE / PROJECT.messages
    table = pd.read_parquet(path)
    # One message goes from train to test, as if the data had been split anew.
    moved = table.index[(table["split"] == "train") & (table["source"] != "feedback")][0]
    table.loc[moved, "split"] = "test"
    write_table(path, table)
    logits = checkout.folder / "logits/tfidf/0.npz"
    arrays = read_arrays(logits)
    at = int((table.loc[: moved - 1, "split"] == "test").sum())
    write_arrays(logits, {**arrays, "test": np.insert(arrays["test"], at, 0, axis=0)})
    said = done(step(project, "challenge"))
    assert "1 test messages are left out, because the champion may have been trained on them" in said
    found = read_json(project.folder / PROJECT.retrain / "w1/challenge.json")
    assert found["left_out"] == 1 and sum(found["test"].values()) == (table["split"] == "test").sum() - 1


REFUSED: dict[str, tuple[Callable[[Project], Any], str]] = {
    "nothing deployed": (
        lambda project: shutil.rmtree(project.folder / PROJECT.deployed),
        "no such file, so no model is deployed",
    ),
    "no window": (
        lambda project: (project.folder / PROJECT.watch / "w1.json").unlink(),
        "no watched window 'w1' in production/watch",
    ),
    "no messages in it": (
        lambda project: project.write(f"{PROJECT.watch}/w1.json", {"model": "0001", "estimated_prior": None}),
        "production/watch/w1.json: has no estimated_prior",
    ),
    "no git": (lambda project: shutil.rmtree(project.folder / ".git"), "git rev-parse --show-prefix: fatal: not a git"),
    "a folder of a repository": (
        lambda project: shutil.move(project.folder / ".git", project.folder.parent),
        "is a folder within a git repository; a retraining needs the project at the root of its repository",
    ),
    "a metric of probabilities": (
        lambda project: project.edit({"production.retrain.metric": "spam.pr_auc"}),
        "params.yaml: production.retrain.metric 'spam.pr_auc' is not a metric of decisions: ",
    ),
    "a wrong setting": (lambda project: project.edit({"production.retrain.margin": -1}), "production.retrain.margin: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_retrained_is_one_readable_line_and_leaves_nothing(project: Project, case: str) -> None:
    change, words = REFUSED[case]
    change(project)
    assert words in step(project, "prepare").error
    assert not (project.folder / PROJECT.retrain / "w1/prepared.json").exists() and not (project.folder / WORKTREE).exists()


@pytest.mark.parametrize("key", ["a/b", "../x", ".hidden", "a b"])
def test_a_key_names_a_folder(project: Project, key: str) -> None:
    assert f"the key {key!r} must name a folder; expected at most" in step(project, "prepare", key=key).error
    with contextlib.chdir(project.folder), pytest.raises(UserError, match="must name a folder; expected at most"):
        retrain.fn(key=key)
    assert not (project.folder / PROJECT.retrain).exists()


def test_conclude_needs_the_version(project: Project) -> None:
    assert "conclude needs --version" in step(project, "conclude").error
