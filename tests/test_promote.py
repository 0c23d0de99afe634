"""Deploying: what a version holds, what is refused, another prior, going back, who is killed, review, alarms."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy.special import expit, softmax

import ballast
from ballast.data.descriptors import NAMES
from ballast.evaluation.operating_point import cost_matrix, threshold
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from flows import promote as flow_of_promotion
from flows.alarms import notify
from flows.failures import StageFailed
from stages.production.deployed import MANIFEST, VOCABULARY, read_version
from stages.production.prune import prune_windows
from stages.production.reference import by_deployed_model, read_held_out
from stages.production.versions import content
from stages.store.checked import read_arrays, write_arrays, write_table
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.deployed import VALIDATION
from tests.flow_fixtures import Server, eventually, prefect_server
from tests.project import Outcome, Project, corpus, project_copy

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

COPIED = ("dvc.lock", "model_card.md", "params.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project in which a model is selected."""
    project = project_copy(tmp_path_factory.mktemp("promote"), quick_python)
    project.write("messages.csv", corpus({"ham": 900, "spam": 150}))
    project.edit(
        {
            "ingest.source": "file",
            "ingest.path": "messages.csv",
            "techniques": {"tfidf": {}},
            "train.seeds": [0, 1],
            "evaluate.resamples": 100,
        }
    )
    project.write(str(PROJECT.validation), VALIDATION)
    # The stages here and only their lock by DVC, which spares a dozen starts.
    for stage in (
        "store.sources",
        "ingest",
        "encoder",
        "search",
        "techniques",
        "resample",
        "train",
        "evaluate",
        "probe",
        "compare",
        "select",
    ):
        entry = {"name": "tfidf"} if stage in ("resample", "train", "evaluate") else {}
        for seed in ({"seed": 0}, {"seed": 1}) if stage in ("resample", "train") else ({},):
            done = project.stage_here(stage, **entry, **seed)
            assert done.code == 0, done.stderr
    committed = project.run("dvc", "commit", "--force", "train@tfidf-0", "train@tfidf-1", "select")
    assert committed.code == 0, committed.stderr
    assert read_json(project.folder / PROJECT.selected / "model.json")["technique"] == "tfidf"
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    shutil.copytree(built.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".dvc"))
    return Project(folder, folder, built.environment)


def promote(project: Project, **given: Any) -> Outcome:
    return project.stage_here("production.promote", **given)


def promoted(project: Project, **given: Any) -> str:
    """The version that is deployed after a promotion that succeeds."""
    done = promote(project, **given)
    assert done.code == 0, done.stderr
    assert deployed(project) == done.stdout.strip()
    return done.stdout.strip()


def deployed(project: Project) -> str:
    return str(read_json(project.folder / PROJECT.current)["version"])


def versions(project: Project) -> list[str]:
    return sorted(path.name for path in (project.folder / PROJECT.deployed).glob("*") if path.is_dir())


def manifest(project: Project, version: str) -> dict[str, Any]:
    return dict(read_json(project.folder / PROJECT.deployed / version / MANIFEST))


def watched(project: Project, window: str, spam: float) -> str:
    """A window whose estimated prior is known."""
    content = {"window": window, "estimated_prior": {"ham": 1 - spam, "spam": spam}}
    project.write(f"{PROJECT.watch}/{window}.json", content)
    return window


def rewrite(project: Project, path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file."""
    content = read_json(project.folder / path)
    project.write(str(path), change(content) or content)


def state(project: Project) -> dict[str, bytes]:
    """Every file of what is deployed."""
    files = (project.folder / PROJECT.deployed).rglob("*")
    return {str(path): path.read_bytes() for path in files if path.is_file() and path.suffix != ".lock"}


def spoil(path: Path) -> None:
    """Change one byte of a file, and of no other name that it has."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def test_a_version_holds_all_that_production_needs(project: Project) -> None:
    assert promoted(project) == "0001"
    folder, found = project.folder / PROJECT.deployed / "0001", manifest(project, "0001")
    selected = {
        name: read_json(project.folder / PROJECT.selected / f"{name}.json")
        for name in ("model", "calibration", "operating_point")
    }
    assert {key: found[key] for key in ("version", "reason", "window", "technique", "seed")} == {
        "version": "0001",
        "reason": "promote",
        "window": None,
        "technique": "tfidf",
        "seed": 0,
    }
    for key in ("labels", "effective_prior", "production_prior"):
        assert found[key] == selected["model"][key]
    assert found["calibration"] == selected["calibration"]
    assert found["operating_point"] == selected["operating_point"]

    files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}
    assert files.pop(MANIFEST)
    assert found["files"] == files
    origin = project.folder / selected["model"]["folder"]
    assert {f"model/{path.name}": file_sha256(path) for path in origin.iterdir()}.items() < files.items()
    for name in COPIED:
        original = project.folder / (PROJECT.selected / name if name == "model_card.md" else name)
        assert (folder / name).read_bytes() == original.read_bytes()

    [entry] = read_json(project.folder / PROJECT.current)["history"]
    assert (entry["version"], entry["reason"], entry["at"][-6:]) == ("0001", "promote", "+00:00")
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    lineage = found["lineage"]
    assert (lineage["commit"], lineage["modified"]) == (commit, ["dvc.lock", "params.yaml"])
    assert lineage["messages"] == file_sha256(project.folder / PROJECT.messages)
    assert lineage["model"]["path"] == "models/tfidf/0" and lineage["model"]["md5"].endswith(".dir")
    assert (project.folder / "dvc.lock").read_text().count(lineage["model"]["md5"]) > 0


def test_the_reference_is_what_each_training_has_not_seen_without_texts(project: Project) -> None:
    promoted(project)
    folder = project.folder / PROJECT.deployed / "0001"
    reference, words = pd.read_parquet(folder / "reference.parquet"), load_file(folder / "vocabulary.safetensors")["words"]
    messages = pd.read_parquet(project.folder / PROJECT.messages)
    test = messages[messages["split"] == "test"]
    parts = [messages[messages["fold"] == seed].assign(split="validation", training=seed) for seed in (0, 1)]
    held_out = pd.concat([*parts, *(test.assign(training=seed) for seed in (0, 1))])
    assert list(reference) == ["label", "split", "group", "training", "row", "logit_ham", "logit_spam", *NAMES]
    same = ["label", "split", "group", "training"]
    assert reference[same].to_numpy().tolist() == held_out[same].to_numpy().tolist()
    assert reference["row"].tolist() == held_out.index.tolist()
    assert (reference["group"].dtype, words.dtype) == (np.int64, np.uint64)
    assert (np.diff(words.astype(object)) > 0).all()
    logits = reference[["logit_ham", "logit_spam"]].to_numpy()
    for seed in (0, 1):
        rows = (held_out["training"] == seed).to_numpy()
        model = ballast.load(project.folder / f"models/tfidf/{seed}")
        assert np.allclose(logits[rows], model.logits(held_out["text"][rows].tolist()), atol=1e-4)
    # The scores of the two trainings differ, so the check above can fail.
    assert (
        np.abs(
            logits[held_out["training"] == 1]
            - ballast.load(folder / "model").logits(held_out["text"][held_out["training"] == 1].tolist())
        ).max()
        > 0.1
    )
    with contextlib.chdir(project.folder):
        version = read_version("0001")
        own = by_deployed_model(version, read_held_out(version))
    assert own["training"].unique().tolist() == [0]
    assert own["row"].tolist() == [*parts[0].index, *test.index]


def as_an_earlier_release_made_it(project: Project) -> None:
    """Version 0001 with the scores of one training, fewer settings, and metrics of validation."""
    folder = project.folder / PROJECT.deployed / "0001"
    reference = pd.read_parquet(folder / "reference.parquet")
    write_table(folder / "reference.parquet", reference[reference["training"] == 0].drop(columns=["training", "row"]))
    lines = (folder / "params.yaml").read_text().splitlines(keepends=True)
    new = ("  safe_odds_ratio:", "  margin: 0.02", "  beta:", "  guarantee:", "  review:", "  recall:")
    (folder / "params.yaml").write_text("".join(line for line in lines if not line.startswith(new)))
    found = manifest(project, "0001")
    del found["declared_prior"], found["operating_point"]["out_of_fold"]
    former = {key: found["operating_point"].pop(key) for key in ("beta", "guarantee", "probability", "review", "threshold")}
    assert former["beta"] is None or former["beta"] == 1
    found["operating_point"]["validation"] = {"spam.f1": 0.5}
    for name in ("reference.parquet", "params.yaml"):
        found["files"][name] = file_sha256(folder / name)
    write_json(folder / MANIFEST, found)
    history = read_json(project.folder / PROJECT.current)
    history["history"][0] |= {"sha256": file_sha256(folder / MANIFEST), "content": content(found)}
    write_json(project.folder / PROJECT.current, history)


def test_a_version_of_an_earlier_release_is_corrected_rolled_back_to_and_replaced(project: Project) -> None:
    promoted(project)
    as_an_earlier_release_made_it(project)
    with contextlib.chdir(project.folder):
        version = read_version("0001")
        held_out = read_held_out(version)
        assert len(by_deployed_model(version, held_out)) == len(held_out) > 0
    assert promoted(project, reprior=watched(project, "2026-01-01", 0.4)) == "0002"
    point = manifest(project, "0002")["operating_point"]
    assert "validation" not in point and 0.5 < point["out_of_fold"]["spam.f1"]["value"] < 1
    assert point["out_of_fold"]["spam.support"]["value"] < point["test"]["spam.support"]["value"]
    assert promoted(project, rollback=True) == "0001"
    # The selected model is another one, with the scores of two trainings.
    assert promoted(project) == "0003"
    assert manifest(project, "0003")["operating_point"]["out_of_fold"]


def test_what_is_deployed_already_is_not_deployed_again(project: Project) -> None:
    promoted(project)
    before = state(project)
    as_somebody = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    project.run("git", *as_somebody, "commit", "--all", "--no-verify", "-m", "Another commit of the same model")
    again = promote(project, reason="retrain", window="2026-01-02")
    assert (again.code, again.stdout) == (0, "0001\n")
    assert "already deployed as 0001" in again.stderr
    assert state(project) == before
    # What is broken is no reason not to deploy.
    spoil(project.folder / PROJECT.deployed / "0001/model/model.safetensors")
    mended = promote(project)
    assert mended.stdout == "0002\n" and "the deployed version is damaged" in mended.stderr
    with contextlib.chdir(project.folder):
        read_version("0002")


def reversed_messages(project: Project) -> None:
    path = project.folder / PROJECT.messages
    write_table(path, pd.read_parquet(path).iloc[::-1])


def without_lock(change: Callable[[Project], None]) -> Callable[[Project], None]:
    def changed(project: Project) -> None:
        (project.folder / "dvc.lock").unlink()
        change(project)

    return changed


def reversed_texts(project: Project) -> None:
    path = project.folder / PROJECT.messages
    messages = pd.read_parquet(path)
    write_table(path, messages.assign(text=messages["text"].to_numpy()[::-1]))


def fewer_logits(project: Project, seed: int = 0) -> None:
    path = project.folder / PROJECT.logits / f"tfidf/{seed}.npz"
    arrays = read_arrays(path)
    write_arrays(path, {**arrays, "test": arrays["test"][1:]})


def other_labels(project: Project) -> None:
    rewrite(project, PROJECT.selected / "model.json", lambda pointer: pointer | {"labels": ["ham", "spma"]})


def other_calibration(project: Project) -> None:
    rewrite(project, PROJECT.evaluations / "tfidf.json", lambda found: found["fitted"]["calibration"].update(temperature=3.0))


REFUSED: dict[str, tuple[Callable[[Project], object], str]] = {
    "nothing selected": (lambda project: shutil.rmtree(project.folder / PROJECT.selected), "selected/model.json: no such file"),
    "no messages": (lambda project: (project.folder / PROJECT.messages).unlink(), "data/messages.parquet: no such file"),
    "a spoilt weight": (
        lambda project: spoil(project.folder / "models/tfidf/0/model.safetensors"),
        "models/tfidf/0/model.safetensors: sha256 is",
    ),
    "a missing weight": (
        lambda project: (project.folder / "models/tfidf/0/model.safetensors").unlink(),
        "models/tfidf/0/model.safetensors: missing",
    ),
    "other labels": (other_labels, "its labels are ham, spma, those of data/messages.parquet ham, spam"),
    "another evaluation": (other_calibration, "selected/model.json: comes from another run than evaluations/tfidf.json"),
    "another prior": (
        lambda project: project.edit({"production.prior": {"ham": 0.5, "spam": 0.5}}),
        "selected/model.json: its class prior differs from production.prior",
    ),
    "other messages": (reversed_messages, "data/messages.parquet: differs from the file that dvc.lock names for the model"),
    "other logits": (fewer_logits, "logits/tfidf/0.npz: differs from the file that dvc.lock names for the model"),
    "another leaderboard": (
        lambda project: rewrite(project, PROJECT.leaderboard, lambda board: board | {"reference": "another"}),
        "reports/leaderboard.json: differs from the file that dvc.lock names for the selection",
    ),
    "other messages without a lock": (without_lock(reversed_messages), "logits/tfidf/0.npz: scores other messages than"),
    "other texts without a lock": (without_lock(reversed_texts), "does not give the messages"),
    "other logits without a lock": (without_lock(fewer_logits), "logits/tfidf/0.npz: scores other messages than"),
    "other logits of another training": (
        lambda project: fewer_logits(project, seed=1),
        "logits/tfidf/1.npz: differs from the file that dvc.lock names for the model",
    ),
    "a wrong setting": (lambda project: project.edit({"production.promote": "reveiw"}), "production.promote: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused_and_changes_nothing(project: Project, case: str) -> None:
    change, words = REFUSED[case]
    change(project)
    assert words in promote(project).error
    assert state(project) == {} and versions(project) == []


def test_another_checkout_is_deployed_here(project: Project, built: Project) -> None:
    assert promoted(project, source=built.folder, reason="retrain", window="2026-01-02") == "0001"
    found = manifest(project, "0001")
    assert (found["reason"], found["window"]) == ("retrain", "2026-01-02")
    assert not (built.folder / PROJECT.deployed).exists()
    empty = project.folder / "empty"
    empty.mkdir()
    assert f"{empty}/selected/model.json: no such file" in promote(project, source=empty).error


def test_a_wrong_prior_is_said_to_be_in_the_file_of_its_checkout(project: Project) -> None:
    project.edit({"production.prior": {"ham": 0.5, "egg": 0.5}})
    assert promote(project).error.startswith("error: params.yaml: production.prior")
    assert promote(project, source=project.folder).error.startswith(f"error: {project.folder}/params.yaml: production.prior")


def test_another_prior_keeps_the_weights_and_chooses_the_operating_point_anew(project: Project) -> None:
    promoted(project)
    prior = {"ham": 0.6, "spam": 0.4}
    assert promoted(project, reprior=watched(project, "2026-01-01", 0.4)) == "0002"
    first, second = (manifest(project, version) for version in ("0001", "0002"))
    same = ("technique", "seed", "labels", "declared_prior", "effective_prior", "calibration", "lineage")
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    assert (second["reason"], second["window"], second["production_prior"]) == ("reprior", "2026-01-01", prior)
    assert {name for name in first["files"] if first["files"][name] != second["files"][name]} == {"model_card.md"}
    old, new = (project.folder / PROJECT.deployed / version for version in ("0001", "0002"))
    assert all((old / name).samefile(new / name) for name in first["files"] if name != "model_card.md")

    # By hand: on the validation of both trainings, the threshold of highest F1 of spam when spam is 40%.
    reference = pd.read_parquet(new / "reference.parquet")
    rows = reference[reference["split"] == "validation"]
    spam = (rows["label"] == "spam").to_numpy()
    odds = (rows["logit_spam"].astype(float) - rows["logit_ham"].astype(float)).to_numpy()
    odds = odds + np.log(0.4 / 0.6) - np.log(first["effective_prior"]["spam"] / first["effective_prior"]["ham"])
    weights = np.where(spam, 0.4 / spam.mean(), 0.6 / (1 - spam.mean()))
    falling = np.unique(odds)[::-1]
    f1 = [2 * weights[spam & (odds >= cut)].sum() / (weights[odds >= cut].sum() + weights[spam].sum()) for cut in falling]
    best = int(np.argmax(f1))
    costs = cost_matrix(second["operating_point"]["costs"], ["ham", "spam"])
    assert threshold(costs, 1) == pytest.approx(expit((falling[best] + falling[best + 1]) / 2))
    with contextlib.chdir(project.folder):
        version = read_version("0002")
        logits = reference[["logit_ham", "logit_spam"]].to_numpy()
        expected = softmax(
            logits * np.float64(1) - np.log(list(first["effective_prior"].values())) + np.log([0.6, 0.4]), axis=1
        )
        assert np.allclose(version.posteriors(logits), expected, rtol=1e-12)
        assert (version.decisions(expected) == (expected[:, 1] > threshold(costs, 1))).all()

    # And as the stage does it.
    project.edit({"production.prior": prior})
    assert project.stage_here("evaluate", name="tfidf").code == 0
    evaluated = read_json(project.folder / PROJECT.evaluations / "tfidf.json")
    assert evaluated["fitted"]["operating_point"].items() <= second["operating_point"].items()
    for where, part in (("test", "pooled"), ("out_of_fold", "out_of_fold")):
        for name, found in evaluated[part]["operating_point"].items():
            assert second["operating_point"][where][name] == pytest.approx(found, nan_ok=True), (where, name)

    card = (new / "model_card.md").read_text()
    assert card.endswith((old / "model_card.md").read_text())
    note = card.removesuffix((old / "model_card.md").read_text())
    assert "Version 0002** has the weights of version 0001" in note
    assert "to ham 0.6, spam 0.4, as estimated for the window 2026-01-01" in note
    # The next one's note takes the place of this one.
    assert "already deployed as 0002" in promote(project, reprior="2026-01-01").stderr
    assert promoted(project, reprior=watched(project, "2026-01-02", 0.3)) == "0003"
    card = (project.folder / PROJECT.deployed / "0003/model_card.md").read_text()
    assert card.count("has the weights of") == 1 and "weights of version 0002" in card


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no watched window 'w1' in production/watch; known: w0"),
        ({"window": "w1"}, "production/watch/w1.json: has no estimated_prior"),
        ({"estimated_prior": {"ham": 0.5, "spma": 0.5}}, "names the class 'spma'"),
        ({"estimated_prior": {"ham": 1.0, "spam": 0.0}}, "expected shares above 0 that sum to 1"),
        ({"estimated_prior": {"ham": 0.5, "spam": 0.4}}, "expected shares above 0 that sum to 1"),
    ],
)
def test_a_window_without_an_estimate_is_refused(project: Project, content: Mapping[str, Any] | None, words: str) -> None:
    promoted(project)
    watched(project, "w0", 0.3)
    if content is not None:
        project.write(f"{PROJECT.watch}/w1.json", content)
    before = state(project)
    assert words in promote(project, reprior="w1").error
    assert state(project) == before


def test_going_back_goes_further_back_each_time(project: Project) -> None:
    assert "there is no earlier version to roll back to" in promote(project, rollback=True).error
    assert "no model is deployed" in promote(project, reprior="w").error
    for window, share in ((None, 0), ("w1", 0.2), ("w2", 0.3)):
        promoted(project) if window is None else promoted(project, reprior=watched(project, window, share))
    assert [promoted(project, rollback=True) for _ in range(2)] == ["0002", "0001"]
    assert "there is no earlier version to roll back to" in promote(project, rollback=True).error
    # A number is given once, and what was rolled back is not in the chain.
    assert promoted(project, reprior="w2") == "0004"
    assert promoted(project, rollback=True) == "0001"
    history = read_json(project.folder / PROJECT.current)["history"]
    reasons = ["promote", "reprior", "reprior", "rollback", "rollback", "reprior", "rollback"]
    assert [entry["reason"] for entry in history] == reasons
    assert versions(project) == ["0001", "0002", "0003", "0004"]


@pytest.mark.parametrize("name", ["model/model.safetensors", "reference.parquet", "model_card.md", MANIFEST])
def test_a_spoilt_version_is_neither_gone_back_to_nor_corrected(project: Project, name: str) -> None:
    promoted(project)
    promoted(project, reprior=watched(project, "w1", 0.2))
    spoil(project.folder / PROJECT.deployed / "0001" / name)
    before = state(project)
    assert f"0001/{name}: " in promote(project, rollback=True).error
    assert (deployed(project), state(project)) == ("0002", before)
    spoil(project.folder / PROJECT.deployed / "0002" / name)
    before = state(project)
    assert f"0002/{name}: " in promote(project, reprior=watched(project, "w2", 0.3)).error
    assert state(project) == before


# What the process that is killed is doing, and what then is deployed.
KILLED = {
    "while it copies": ("stages.production.candidate", "check_files", "0001"),
    "between copy and switch": ("stages.production.deploy", "switch", "0001"),
    "before the manifest is there": ("stages.production.deploy", "write_json", "0001"),
    "while it writes the switch": ("stages.production.versions", "write_json", "0001"),
    "after the switch": ("stages.production.deploy", "prune_versions", "0002"),
    "while it deletes": ("shutil", "rmtree", "0002"),
}
DIES = """
import importlib, os, signal, sys
from pathlib import Path
from stages.production import promote
module = importlib.import_module({module!r})
def dies(*arguments, **options):
    print("dies", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, {function!r}, dies)
promote.main(reason="retrain")
"""


@pytest.mark.parametrize("moment", KILLED)
def test_whoever_is_killed_leaves_the_old_version_or_the_new_one(project: Project, moment: str) -> None:
    module, function, expected = KILLED[moment]
    promoted(project)
    # Other content: a comment.
    with (project.folder / "params.yaml").open("a") as file:
        file.write("# Changed.\n")
    project.write("stages/dies.py", DIES.format(module=module, function=function).encode())
    killed = project.run("python", "-m", "stages.dies")
    assert killed.code == 128 + 9 and "dies" in killed.stdout, killed.stderr
    assert deployed(project) == expected
    with contextlib.chdir(project.folder):
        read_version(expected)
    assert promoted(project) == "0002"
    assert versions(project) == ["0001", "0002"]
    assert promoted(project, rollback=True) == "0001"
    assert [path.name for path in (project.folder / PROJECT.deployed).glob(".*")] == [".current.json.lock"]


def test_of_two_at_once_one_waits_for_the_other(project: Project) -> None:
    command = ["python", "-m", "stages.production.promote"]
    both = [
        subprocess.Popen(
            command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [each.communicate(timeout=300) for each in both]
    assert [(each.returncode, out) for each, (out, _) in zip(both, told, strict=True)] == [(0, "0001\n")] * 2
    assert sum("already deployed" in stderr for _, stderr in told) == 1
    assert len(read_json(project.folder / PROJECT.current)["history"]) == 1


def test_old_versions_are_deleted_but_not_the_deployed_one_and_the_one_before(project: Project) -> None:
    project.edit({"production.keep": {"versions": 2, "windows": 400}})
    # The settings are a part of what DVC made the model from, but not these.
    promoted(project)
    promoted(project, reprior=watched(project, "w1", 0.2))
    assert "2 versions, " in promote(project, reprior="w1").stderr or versions(project) == ["0001", "0002"]
    promoted(project, reprior=watched(project, "w2", 0.3))
    assert versions(project) == ["0002", "0003"]
    assert promoted(project, rollback=True) == "0002"
    assert "there is no earlier version to roll back to" in promote(project, rollback=True).error
    assert promoted(project, reprior=watched(project, "w3", 0.4)) == "0004"
    assert versions(project) == ["0002", "0003", "0004"], "0002 is the one before"
    # The weights of 0001 have other names still.
    with contextlib.chdir(project.folder):
        read_version("0004").load()


def test_the_list_shows_the_disk_that_is_used(project: Project) -> None:
    assert "no version" in promote(project, listing=True).error
    promoted(project)
    one = promote(project, listing=True).stdout.splitlines()
    done = promote(project, reprior=watched(project, "2026-01-01", 0.4))
    assert "2 versions, " in done.stderr
    *rows, total = promote(project, listing=True).stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["0001", "0002"]
    assert "reprior 2026-01-01  tfidf  ham 0.6, spam 0.4" in rows[1]
    assert rows[1].endswith("deployed") and not rows[0].endswith("deployed")
    assert total.split()[-4:-2] == one[-1].split()[-4:-2], "the weights are counted once"


def test_a_dry_run_says_what_would_be_deployed_and_changes_nothing(project: Project) -> None:
    first = json.loads(promote(project, dry_run=True).stdout)
    assert (first["new"], first["deployed"], first["candidate"]["technique"]) == (True, None, "tfidf")
    assert versions(project) == [] and not (project.folder / PROJECT.current).exists()
    assert "differs from the approved one" in promote(project, only="0" * 64).error
    assert versions(project) == []
    assert promoted(project, only=first["content"]) == "0001"
    again = json.loads(promote(project, dry_run=True).stdout)
    assert (again["new"], again["content"], again["deployed"]["version"]) == (False, first["content"], "0001")


def test_the_result_file_says_which_version_is_deployed_and_what_would_be(project: Project) -> None:
    result = project.folder / "result.json"
    proposal = json.loads(promote(project, dry_run=True).stdout)
    assert promote(project, dry_run=True, result=result).stdout == ""
    assert read_json(result) == proposal and proposal["new"]
    for new in (True, False):
        promote(project, result=result)
        assert read_json(result) == {"version": "0001", "new": new}
    promoted(project, reprior=watched(project, "w1", 0.4))
    promote(project, rollback=True, result=result)
    assert read_json(result) == {"version": "0001", "new": True}


def test_nothing_takes_the_place_of_another_version_than_it_was_compared_with(project: Project) -> None:
    assert promoted(project) == "0001"
    for window, spam in (("w1", 0.4), ("w2", 0.3)):
        watched(project, window, spam)
    assert promoted(project, reprior="w1", base="0001") == "0002"
    assert promoted(project, reprior="w1", base="0001") == "0002", "the same once more"
    error = promote(project, reprior="w2", base="0001").error
    assert error == "error: 0002 was deployed after 0001 was compared; nothing was deployed"
    assert versions(project) == ["0001", "0002"] and deployed(project) == "0002"


def other_content(project: Project, comment: str) -> str:
    """Settings that differ by a comment: their text before."""
    path = project.folder / "params.yaml"
    before = path.read_text()
    path.write_text(f"{before}# {comment}\n")
    return before


def test_an_older_model_is_not_promoted_unless_forced(project: Project) -> None:
    promoted(project)
    promoted(project, reprior=watched(project, "w1", 0.4))
    before = state(project)
    old = read_json(project.folder / PROJECT.current)["history"][0]["content"]
    expected = (
        f"error: the selected model is version 0001 (content {old[:12]}), which 0002 has replaced; 0002 stays deployed. Set"
        ' production.prior in params.yaml to the deployed {"ham": 0.6, "spam": 0.4} and run `dvc repro`; or roll back with'
        " --rollback, or deploy the selected model with --force"
    )
    assert promote(project).error == promote(project, dry_run=True).error == expected
    stays = promote(project, keep_newer=True)
    assert (stays.code, stays.stdout) == (0, "0002\n") and "which 0002 has replaced; 0002 stays deployed" in stays.stderr
    assert json.loads(promote(project, keep_newer=True, dry_run=True).stdout)["new"] is False
    assert state(project) == before
    # A history that older code wrote says the same.
    without_contents(project)
    assert promote(project).error == expected
    proposal = json.loads(promote(project, dry_run=True, force=True).stdout)
    assert proposal["new"] and "which 0002 has replaced" in proposal["refused"]
    forced = promote(project, force=True)
    assert forced.stdout == "0003\n" and "promote: forced, although the selected model is version 0001" in forced.stderr
    assert [entry["content"] for entry in read_json(project.folder / PROJECT.current)["history"]][::2] == [old, old]


def without_contents(project: Project) -> None:
    """A history as it was before it had contents."""
    found = read_json(project.folder / PROJECT.current)
    history = [{key: value for key, value in entry.items() if key != "content"} for entry in found["history"]]
    project.write(str(PROJECT.current), {"version": found["version"], "history": history})


def test_what_was_only_gone_back_from_may_be_promoted_until_another_version_is(project: Project) -> None:
    project.edit({"production.keep": {"versions": 2, "windows": 400}})
    promoted(project)
    first = other_content(project, "Second")
    assert promoted(project) == "0002"
    second = (project.folder / "params.yaml").read_text()
    assert promoted(project, rollback=True) == "0001"
    assert promoted(project, keep_newer=True) == "0001", "a person went back from it"
    assert "0002" in (said := promote(project, keep_newer=True).stderr) and "was rolled back; 0001 stays deployed" in said
    assert promoted(project) == "0003"
    other_content(project, "Third")
    assert promoted(project) == "0004" and versions(project) == ["0003", "0004"]
    # The first version is deleted, but not forgotten.
    for text, version, later in ((first, "0001", "0003"), (second, "0003", "0004")):
        (project.folder / "params.yaml").write_text(text)
        error = promote(project).error
        assert f"is version {version} (content " in error and f"which {later} has replaced; 0004 stays" in error
        assert "Run `dvc repro` with the labels and the params of the deployed version; or roll back" in error
    assert promoted(project, rollback=True) == "0003"
    assert "already deployed as 0003" in promote(project).stderr


def test_a_model_that_knows_fewer_labels_is_not_promoted_unless_forced(project: Project) -> None:
    nothing = pd.read_parquet(project.folder / PROJECT.feedback)
    texts = ["a message that was labelled", "and another one"]
    project.write(str(PROJECT.feedback), pd.DataFrame({"id": ["a", "b"], "text": texts, "label": "ham", "split": "train"}))
    promoted(project)
    other_content(project, "Second")
    assert promoted(project) == "0002", "it knows as many"
    project.write(str(PROJECT.feedback), nothing)
    other_content(project, "Third")
    error = promote(project).error
    assert (
        "was not trained on 2 labelled messages that 0002 knows; 0002 stays deployed. Run `dvc repro` with the labels" in error
    )
    assert promoted(project, keep_newer=True) == "0002"
    assert promoted(project, force=True) == "0003"


@pytest.mark.parametrize("gone", [PROJECT.current.name, VOCABULARY, MANIFEST])
def test_where_what_is_deployed_cannot_be_read_only_the_same_is_promoted_unless_forced(project: Project, gone: str) -> None:
    promoted(project)
    folder = (project.folder / PROJECT.current).parent
    (folder / gone if gone == PROJECT.current.name else folder / "0001" / gone).unlink()
    if gone != PROJECT.current.name:
        assert promoted(project) == "0002", "its content is that of what is deployed"
        (folder / "0002" / gone).unlink()
    first = other_content(project, "Second")
    error = promote(project).error
    assert "the selected model" in error and "--force" in error
    assert ("current.json is missing" in error) == (gone == PROJECT.current.name)
    before = state(project)
    assert promote(project, dry_run=True).code == 1 and state(project) == before
    (project.folder / "params.yaml").write_text(first)
    assert promoted(project, force=True) == ("0002" if gone == PROJECT.current.name else "0003")


def test_windows_are_deleted_but_for_labels_whose_texts_are_not_kept_yet(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path)
    for day in range(1, 7):
        window = f"2026-01-0{day}"
        project.write(f"{PROJECT.scored}/{window}.parquet", pd.DataFrame({"id": [f"{day}a", f"{day}b"]}))
        project.write(f"{PROJECT.quarantine}/{window}.jsonl", b"{}\n")
        project.write(f"{PROJECT.watch}/{window}.json", b"{}")
        project.write(f"{PROJECT.watch}/{window}.html", b"")
    project.write(f"{PROJECT.watch}/index.html", b"")
    project.write(f"{PROJECT.labels}/first.csv", b"id,label\n1a,spam\n2b,ham\n")
    project.write(f"{PROJECT.labels}/second.jsonl", b'{"id": "6a", "label": "spam"}\n')
    project.write(str(PROJECT.labelled), pd.DataFrame({"id": ["2b"]}))

    def left(folder: Path) -> set[str]:
        return {path.name.split(".")[0].removeprefix("2026-01-0") for path in (tmp_path / folder).iterdir()}

    with contextlib.chdir(tmp_path):
        assert prune_windows(6) == []
        assert prune_windows(3) == ["2026-01-02", "2026-01-03"]
        assert left(PROJECT.scored) == left(PROJECT.quarantine) == {"1", "4", "5", "6"}
        assert left(PROJECT.watch) == {"1", "4", "5", "6", "index"}
        project.write(str(PROJECT.labelled), pd.DataFrame({"id": ["1a", "2b"]}))
        project.write(f"{PROJECT.labels}/third.csv", b"name\n1\n")
        assert prune_windows(3) == [], "labels that cannot be read may be any window's"
        (tmp_path / PROJECT.labels / "third.csv").unlink()
        assert prune_windows(3) == ["2026-01-01"]
    assert len(list((tmp_path / PROJECT.labels).iterdir())) == 2


# The flow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture
def inside(project: Project, server: Server, monkeypatch: pytest.MonkeyPatch, quick_python: Path) -> Iterator[Project]:
    """This process is in the project's folder and knows the server; commands start quickly."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    monkeypatch.setattr(sys, "executable", str(quick_python / "python"))
    monkeypatch.setattr(flow_of_promotion, "POLL_SECONDS", 0.2)
    with contextlib.chdir(project.folder), temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.home}):
        yield project


def events(server: Server, version: str) -> list[dict[str, Any]]:
    """What was told of a version."""
    wanted = {"event": {"name": ["model.promoted"]}, "resource": {"id": [f"ballast.model.{version}"]}}
    answer = httpx.post(f"{server.url}/events/filter", json={"filter": wanted}, timeout=30)
    answer.raise_for_status()
    return list(answer.json()["events"])


@contextlib.contextmanager
def answered(server: Server, **answer: Any) -> Iterator[list[dict[str, Any]]]:
    """A person who answers the run that is paused next; the artifacts that there were to see."""
    seen: list[dict[str, Any]] = []

    def person() -> None:
        [run] = eventually(lambda: server.in_state("PAUSED"))
        seen.append(server.artifacts_of_last_run())
        resume = f"{server.url}/flow_runs/{run['id']}/resume"
        # A moment long it is paused, but does not know yet what to ask.
        eventually(lambda: httpx.post(resume, json={"run_input": answer}, timeout=30).json().get("status") == "ACCEPT")

    thread = threading.Thread(target=person)
    thread.start()
    yield seen
    thread.join(timeout=300)


def test_the_flow_deploys_and_tells(inside: Project, server: Server) -> None:
    assert flow_of_promotion.promote() == "0001"
    run = server.last_run()
    assert (run["name"], run["state_type"]) == ("promote: selected model of here", "COMPLETED")
    [event] = eventually(lambda: events(server, "0001"))
    assert event["resource"]["ballast.reason"] == "promote"
    assert event["payload"] == {
        "version": "0001",
        "reason": "promote",
        "technique": "tfidf",
        "production_prior": manifest(inside, "0001")["production_prior"],
        "previous": None,
        "window": None,
        "shadow": None,
        "note": "",
    }
    shown = server.artifacts_of_last_run()["deployed-model"]
    assert "Version **0001** is deployed (promote)" in shown["data"] and "# Model card: tfidf" in shown["data"]

    assert flow_of_promotion.promote() == "0001"
    assert server.artifacts_of_last_run() == {}, "nothing new, nothing told"
    with pytest.raises(StageFailed, match="no watched window 'w1'"):
        flow_of_promotion.promote(reprior="w1")
    watched(inside, "w1", 0.4)
    assert flow_of_promotion.promote(reprior="w1") == "0002"
    # A rollback waits for nobody.
    inside.edit({"production.promote": "review"})
    assert flow_of_promotion.promote(rollback=True) == "0001"
    # Deployed without Prefect, or by somebody who was killed: the next run tells of it.
    assert promoted(inside, reprior="w1") == "0003"
    assert flow_of_promotion.promote(reprior="w1") == "0003"
    [event] = eventually(lambda: events(server, "0003"))
    assert event["payload"]["previous"] == "0001"
    back = eventually(lambda: [each for each in events(server, "0001") if each["payload"]["reason"] == "rollback"])
    assert back[0]["payload"]["previous"] == "0002"


def test_a_person_approves_or_refuses(inside: Project, server: Server) -> None:
    assert flow_of_promotion.promote(approve=True) == "0001"
    inside.edit({"production.promote": "review"})
    assert flow_of_promotion.promote(approve=True) == "0002", "other settings are other content"
    assert flow_of_promotion.promote() == "0002", "nothing new, nothing to ask"
    watched(inside, "w1", 0.4)
    refused = pytest.raises(flow_of_promotion.NotApproved, match="rejected by a reviewer: not on a Friday; nothing")
    with answered(server, approve=False, note="not on a Friday") as seen, refused:
        flow_of_promotion.promote(reprior="w1", patience_seconds=300)
    assert "| production prior of spam | 0.400 | 0.1" in seen[0]["proposal"]["data"]
    assert "proposed as 0003 | deployed 0002" in seen[0]["proposal"]["data"]
    assert (server.last_run()["state_type"], deployed(inside)) == ("FAILED", "0002")
    with pytest.raises(flow_of_promotion.NotApproved, match="no approval within 1 seconds; nothing was deployed"):
        flow_of_promotion.promote(reprior="w1", patience_seconds=1)
    assert deployed(inside) == "0002"
    with answered(server, approve=True, note="fine"):
        assert flow_of_promotion.promote(reprior="w1", patience_seconds=300) == "0003"
    # Another test's third version was told of without a note.
    [event] = eventually(lambda: [each for each in events(server, "0003") if each["payload"]["note"]])
    assert event["payload"]["note"] == "fine"


def test_an_older_model_is_refused_before_a_person_is_asked(inside: Project, server: Server) -> None:
    inside.edit({"production.promote": "review"})
    assert flow_of_promotion.promote(approve=True) == "0001"
    assert flow_of_promotion.promote(reprior=watched(inside, "w1", 0.4), approve=True) == "0002"
    with pytest.raises(StageFailed, match=r"is version 0001 .* which 0002 has replaced; 0002 stays deployed"):
        flow_of_promotion.promote(patience_seconds=300)
    assert (server.last_run()["state_type"], server.artifacts_of_last_run()) == ("FAILED", {})
    assert flow_of_promotion.promote(older="keep", patience_seconds=300) == "0002"
    with answered(server, approve=True) as seen:
        assert flow_of_promotion.promote(older="deploy", patience_seconds=300) == "0003"
    assert seen[0]["proposal"]["data"].startswith("**Forced**: the selected model is version 0001 (content ")


def test_without_a_server_a_review_asks_for_approval_on_the_command_line(
    inside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prefect itself still has one, which saves the start of another.
    monkeypatch.setattr(flow_of_promotion, "PREFECT_API_URL", SimpleNamespace(value=lambda: None))
    inside.edit({"production.promote": "review"})
    with pytest.raises(UserError, match=r"PREFECT_API_URL does not name a Prefect server .* repeat the command with --approve"):
        flow_of_promotion.promote()
    assert versions(inside) == []


# The webhook


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that takes what is posted; with `/fails` it answers 500."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response({"/fails": 500, "/moved": 307}.get(self.path, 200))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", received
        listening.shutdown()
        thread.join()


def test_people_are_told_by_the_webhook(
    inside: Project, hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, received = hook
    payload = {"version": "0007", "production_prior": {"ham": 0.5}}
    notify("model.promoted", "ballast.model.0007", payload)
    assert received == []
    inside.edit({"production.webhook": address})
    notify("model.promoted", "ballast.model.0007", payload, labels={"ballast.reason": "promote"})
    assert received.pop() == {
        "text": 'model.promoted: version 0007, production_prior {"ham": 0.5}',
        "event": "model.promoted",
        "resource": "ballast.model.0007",
        "labels": {"ballast.reason": "promote"},
        "payload": payload,
    }
    inside.edit({"production.webhook": "$BALLAST_HOOK"})
    notify("model.promoted", "ballast.model.0007", payload)
    assert "variable BALLAST_HOOK is not set" in caplog.text and received == []
    for wrong, words in (
        (f"{address}/fails", "status 500"),
        ("http://127.0.0.1:9", "ConnectError"),
        (f"{address}/moved", "status 307"),
        ("nowhere", "expected an address with http"),
    ):
        monkeypatch.setenv("BALLAST_HOOK", wrong)
        notify("model.promoted", "ballast.model.0007", payload)
        assert words in caplog.text and wrong not in caplog.text
    # One that fails, and one that is elsewhere.
    assert len(received) == 2


def test_a_webhook_is_a_secret(
    inside: Project, hook: tuple[str, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    address, received = hook

    def warned(setting: str) -> str:
        caplog.clear()
        inside.edit({"production.webhook": setting})
        notify("model.promoted", "ballast.model.0007", {"version": "0007"})
        assert "token" not in caplog.text
        return caplog.text

    secret = inside.write("hook.txt", f"{address}/token\n".encode())
    secret.chmod(0o644)
    assert "chmod 600 hook.txt" in warned("file:hook.txt")
    secret.chmod(0o600)
    assert warned("file:hook.txt") == ""
    assert len(received) == 2
    for setting in (f"{address}/token", f"{address}?token", "file:nowhere.txt"):
        assert "no notification was sent" in warned(setting)
    assert len(received) == 2
