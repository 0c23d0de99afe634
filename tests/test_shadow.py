"""The shadow: a second version scores the same traffic, a worse one is shown worse, and nothing about it stops the scoring."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import stages.production.watch  # noqa: F401
from stages.production.verify import failures, production
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests import deployed as made
from tests.deployed import label, promote, score, selected_project, watch
from tests.project import Outcome, Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

USUAL = {"ham": 1300, "spam": 200}
SHADOW = PROJECT.shadow / "w1.parquet"
SCORED = PROJECT.scored / "w1.parquet"


def traffic(counts: Mapping[str, int] = USUAL, seed: int = 1) -> pd.DataFrame:
    """Messages with other numbers than those of training, so that the model has not seen any word that only one message has."""
    messages = made.traffic(counts, seed)
    return messages.assign(text=messages["text"].str.replace(" 1", " 9"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a deployed model, and traffic of the next window."""
    python, small = Path(sys.executable).parent, {"report.sample": 100}
    project = selected_project(tmp_path_factory.mktemp("shadow"), python, {"ham": 1800, "spam": 300}, **small)
    assert promote(project) == "0001"
    project.write("incoming/w1.parquet", traffic()[["id", "text"]])
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    shutil.copytree(built.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".dvc", "probes"))
    return Project(folder, folder, built.environment)


def stored(project: Project, name: str = "0002", costs: Mapping[str, float] | None = None, **changes: Any) -> str:
    """Store a copy of the deployed version that decides by other costs of its mistakes."""
    folder = project.folder / PROJECT.deployed / name
    shutil.copytree(project.folder / PROJECT.deployed / "0001", folder)
    manifest = {**read_json(folder / "manifest.json"), "version": name, "reason": "shadow", **changes}
    if costs is not None:
        other = {true: {label: 0.0 if label == true else cost for label in manifest["labels"]} for true, cost in costs.items()}
        manifest["operating_point"] = {**manifest["operating_point"], "costs": other}
    write_json(folder / "manifest.json", manifest)
    return name


def scored(project: Project, shadow: str | None = "0002") -> Outcome:
    """Score the window, with a shadow."""
    project.edit({"production.shadow": shadow})
    done = project.stage_here("production.score", source="incoming/w1.parquet", window="w1")
    assert done.code == 0, done.stderr
    return done


def watched_shadow(project: Project) -> dict[str, Any]:
    return dict(watch(project, "w1")["shadow"])


def page(project: Project) -> str:
    return (project.folder / PROJECT.watch / "index.html").read_text(encoding="utf-8")


def promoted(project: Project, **given: Any) -> Outcome:
    """Run the stage promote, also if it fails."""
    flags = dict.fromkeys(("rollback", "listing", "dry_run", "shadow", "force"), False)
    arguments = {"source": Path(), "reason": "promote", "window": None, "reprior": None, "only": None}
    return project.stage_here("production.promote", **{**arguments, **flags, **given})


def deployed(project: Project) -> dict[str, Any]:
    return read_json(project.folder / PROJECT.current)


def test_the_shadow_scores_the_same_messages_in_the_same_form_and_again_alike(project: Project) -> None:
    stored(project, costs={"ham": 9.0, "spam": 1.0})
    done = scored(project)
    ours, theirs = (pd.read_parquet(project.folder / path) for path in (SCORED, SHADOW))
    assert list(ours) == list(theirs) and ours[["id", "text", "group"]].equals(theirs[["id", "text", "group"]])
    assert (set(ours["model"]), set(theirs["model"])) == ({"0001"}, {"0002"})
    differ = int((ours["label"] != theirs["label"]).sum())
    assert differ > 0 and f"the shadow 0002 decides {differ} of 1,500 messages differently" in done.stderr
    before = [(project.folder / path).read_bytes() for path in (SCORED, SHADOW)]
    scored(project)
    assert [(project.folder / path).read_bytes() for path in (SCORED, SHADOW)] == before


@pytest.mark.parametrize("wrong", ["0009", "candidate", "../0001", True, -3, 1.5, ["0002"]])
def test_a_wrong_setting_is_an_error_before_anything_is_scored(project: Project, wrong: Any) -> None:
    project.edit({"production.shadow": wrong})
    error = project.stage_here("production.score", source="incoming/w1.parquet", window="w1").error
    assert "production.shadow" in error and not (project.folder / SCORED).exists()


def test_a_version_may_be_written_without_quotes(project: Project) -> None:
    stored(project)
    params = project.folder / "params.yaml"
    params.write_text(
        re.sub(r"^  shadow:.*", "  shadow: 0002", params.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8"
    )
    done = project.stage_here("production.score", source="incoming/w1.parquet", window="w1")
    assert done.code == 0 and (project.folder / SHADOW).is_file(), done.stderr


def test_the_deployed_version_is_not_scored_twice(project: Project) -> None:
    stored(project)
    scored(project)
    done = scored(project, "0001")
    assert "remove production.shadow" in done.stderr
    assert not (project.folder / SHADOW).exists() and watch(project, "w1")["shadow"] is None


def test_a_damaged_shadow_stops_neither_the_scoring_nor_the_watch(project: Project) -> None:
    stored(project, costs={"ham": 9.0, "spam": 1.0})
    scored(project)
    model = next((project.folder / PROJECT.deployed / "0002/model").glob("*.safetensors"))
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    done = scored(project)
    assert "1,500 messages scored with version 0001" in done.stderr
    assert "the shadow 0002 could not score the messages" in done.stderr and "sha256" in done.stderr
    assert not (project.folder / SHADOW).exists()
    shadow = watched_shadow(project)
    assert model.name in shadow["problem"] and shadow["metrics"] is None and "Not compared" in page(project)


def test_a_shadow_with_other_labels_is_a_problem(project: Project) -> None:
    stored(project, labels=["ham", "junk"])
    assert "could not score" in scored(project).stderr
    assert watched_shadow(project)["problem"]


@pytest.mark.parametrize("damage", ["missing", "flipped", "other messages", "other version"])
def test_a_missing_or_damaged_file_of_the_shadow_is_reported(project: Project, damage: str) -> None:
    stored(project, costs={"ham": 9.0, "spam": 1.0})
    scored(project)
    path = project.folder / SHADOW
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with contextlib.chdir(project.folder):
            assert [str(SHADOW) in failure for failure in failures(production())] == [True]
    elif damage == "other messages":
        kept = path.read_bytes()
        project.write("incoming/w1.parquet", traffic(seed=2)[["id", "text"]])
        scored(project)
        path.write_bytes(kept)
    else:
        manifest = project.folder / PROJECT.deployed / "0002/manifest.json"
        write_json(manifest, {**read_json(manifest), "reason": "another"})
    problem = watched_shadow(project)["problem"]
    assert str(SHADOW) in problem and "flows.score" in problem
    assert scored(project).code == 0 and watched_shadow(project)["problem"] is None


def test_a_worse_shadow_is_shown_worse_by_as_much_as_it_is(project: Project) -> None:
    stored(project, costs={"ham": 9.0, "spam": 1.0})
    scored(project)
    shadow = watched_shadow(project)
    truth = traffic()["label"].to_numpy()
    decided = [pd.read_parquet(project.folder / path)["label"].to_numpy() for path in (SCORED, SHADOW)]
    recalls = [float((of_version[truth == "spam"] == "spam").mean()) for of_version in decided]
    recall = shadow["metrics"]["spam.recall"]
    assert recalls[1] < recalls[0] - 0.05 and recall["low"] < recalls[1] - recalls[0] < recall["high"] < 0
    assert shadow["verdict"] == "worse" and shadow["differ"]["count"] == int((decided[0] != decided[1]).sum())
    table = pd.crosstab(*decided)
    assert all(shadow["decisions"][ours][theirs] == table.get(theirs, {}).get(ours, 0) for ours in table for theirs in table)
    assert shadow["held_out_groups"]["deployed"] == shadow["held_out_groups"]["shadow"] == 0 < shadow["held_out_groups"]["both"]
    assert shadow["summary"].endswith("0002 is worse") and shadow["summary"] in page(project)


def test_of_an_equal_shadow_no_difference_is_shown(project: Project) -> None:
    stored(project, technique="another name")
    scored(project)
    shadow = watched_shadow(project)
    assert shadow["differ"]["count"] == 0 and shadow["verdict"] == "not shown"
    assert {metric["value"] for metric in shadow["metrics"].values()} == {0.0}
    assert all(metric["low"] < 0 < metric["high"] for metric in shadow["metrics"].values())
    assert "0002 beside 0001: 0 of 1,500 decisions differ" in shadow["summary"] and "no difference is shown" in page(project)


def test_the_cost_decides_if_mistakes_have_costs(project: Project) -> None:
    stored(project, costs={"ham": 60.0, "spam": 1.0})
    project.edit({"operating_point.costs": {"ham": {"spam": 60.0}, "spam": {"ham": 1.0}}})
    scored(project)
    shadow = watched_shadow(project)
    assert shadow["metrics"]["cost"]["high"] < 0 and shadow["verdict"] == "better"


def test_the_difference_is_withheld_with_the_estimate(project: Project) -> None:
    stored(project, costs={"ham": 9.0, "spam": 1.0})
    project.write("incoming/w1.parquet", traffic({"ham": 20, "spam": 10})[["id", "text"]])
    scored(project)
    result = watch(project, "w1")
    shadow = result["shadow"]
    assert shadow["withheld"] == result["estimated_performance"]["withheld"] is not None
    assert shadow["metrics"] is None and shadow["differ"]["low"] <= shadow["differ"]["value"] <= shadow["differ"]["high"]


def test_a_window_without_messages_has_nothing_to_compare(project: Project) -> None:
    stored(project)
    project.write("incoming/w1.parquet", traffic()[["id", "text"]].head(0))
    scored(project)
    shadow = watched_shadow(project)
    assert (shadow["n"], shadow["differ"], shadow["problem"]) == (0, None, None) and "no messages" in shadow["summary"]


def test_labels_show_which_version_is_right(project: Project) -> None:
    stored(project, costs={"ham": 60.0, "spam": 1.0})
    scored(project)
    label(project, "some", traffic())
    watch(project, "w1")
    truth = traffic()["label"].to_numpy()
    ours, theirs = (pd.read_parquet(project.folder / path)["label"].to_numpy() for path in (SCORED, SHADOW))
    differ = ours != theirs
    right = [int((decided == truth)[differ].sum()) for decided in (ours, theirs)]
    assert f"{right[1]} <span" in page(project) and f"{right[0]} <span" in page(project) and right[0] > right[1]


def test_a_version_is_stored_without_deploying_it_and_then_deployed_with_what_was_shown(project: Project) -> None:
    before = deployed(project)
    project.edit({"operating_point.rule": "recall", "operating_point.label": "spam", "operating_point.recall": 0.5})
    for stage, given in (("evaluate", {"name": "tfidf"}), ("probe", {}), ("compare", {}), ("select", {})):
        done = project.stage_here(stage, **given)
        assert done.code == 0, done.stderr
    done = promoted(project, shadow=True)
    assert done.stdout.strip() == "0002" and "0001 stays deployed" in done.stderr and deployed(project) == before
    assert promoted(project, shadow=True).stdout.strip() == "0002"
    scored(project)
    assert "shadow" in promoted(project, listing=True).stdout
    watch(project, "w1")
    error = promoted(project, version="0002").error
    assert "0002 is worse" in error and "--force" in error and deployed(project) == before
    # The selected model is the stored version, although params.yaml names the shadow now.
    assert "0002 is worse" in promoted(project).error
    done = promoted(project, force=True)
    assert done.stdout.strip() == "0002"
    last = deployed(project)["history"][-1]
    assert last["version"] == "0002" and "in shadow, 0002 decided" in last["shadow"]
    assert not (project.folder / PROJECT.deployed / "0003").exists()
    assert "remove production.shadow" in scored(project).stderr


def test_an_equal_version_may_be_promoted(project: Project) -> None:
    stored(project, technique="another name")
    project.edit({"production.shadow": "0002"})
    assert "was not in shadow beside 0001" in json.loads(promoted(project, version="0002", dry_run=True).stdout)["shadow"]
    scored(project)
    watch(project, "w1")
    done = promoted(project, version="0002")
    assert done.stdout.strip() == "0002" and "in shadow, 0002 decided" in done.stderr
    error = promoted(project, version="0001").error
    assert "--rollback" in error
    assert "no version 0007" in promoted(project, version="0007").error


def test_a_shadow_needs_a_deployed_version(project: Project) -> None:
    shutil.rmtree(project.folder / PROJECT.deployed)
    assert "no model is deployed" in promoted(project, shadow=True).error
    assert list((project.folder / PROJECT.deployed).glob("[0-9]*")) == []


def test_the_shadow_stays_on_disk_and_its_scores_go_with_their_window(project: Project) -> None:
    stored(project, "0002", costs={"ham": 9.0, "spam": 1.0})
    for name in ("0003", "0004", "0005"):
        stored(project, name, costs={"ham": float(name), "spam": 1.0})
    project.edit({"production.shadow": "0002", "production.keep.versions": 2})
    scored(project)
    promoted(project, version="0005")
    assert sorted(path.name for path in (project.folder / PROJECT.deployed).glob("[0-9]*")) == ["0001", "0002", "0004", "0005"]
    score(project, "w2", traffic({"ham": 20, "spam": 10}, seed=3))
    project.stage_here("production.watch", window="w2")
    assert (project.folder / SHADOW).exists()
    project.edit({"production.keep.windows": 1})
    project.stage_here("production.watch", window="w2")
    assert not (project.folder / SHADOW).exists() and (project.folder / PROJECT.shadow / "w2.parquet").exists()
