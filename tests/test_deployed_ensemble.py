"""An ensemble from the selection to production, and the levers of its project: what was fitted on single models is applied."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

import ballast
from ballast.models.ensemble import EnsembleModel, mean_logits
from stages.production.deployed import MANIFEST, REFERENCE, read_version
from stages.production.reprior import operating_point_for
from stages.store.checked import read_arrays
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.deployed import promote, score, selected_project, traffic, watch
from tests.project import TINY_TRAINING, Project, tiny_encoder

COUNTS = {"ham": 500, "spam": 150}
SEEDS = [0, 1, 2]
LEVERS = {
    "Threshold or cost rule",
    "Post hoc correction",
    "Another technique",
    "Average the seeds",
    "A larger encoder",
    "Twice as many labels",
    "Correct wrong labels",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project in which an ensemble of three tiny encoders with a frozen layer is selected."""
    encoder = tiny_encoder(tmp_path_factory.mktemp("encoder"), layers=2)
    training = {f"train.{key}": value for key, value in TINY_TRAINING.items()}
    return selected_project(
        tmp_path_factory.mktemp("ensemble"),
        quick_python,
        COUNTS,
        **training
        | {"train.model": str(encoder), "train.frozen_layers": 1, "train.epochs": 4, "train.seeds": SEEDS}
        | {"techniques": {"baseline": {}}, "select.deploy": "ensemble"},
    )


@pytest.fixture(scope="module")
def deployed(built: Project) -> Project:
    assert promote(built) == "0001"
    return built


def test_the_selection_names_all_seeds_and_measures_their_mean(built: Project) -> None:
    pointer, point = (read_json(built.folder / PROJECT.selected / f"{name}.json") for name in ("model", "operating_point"))
    assert pointer["seeds"] == SEEDS and "seed" not in pointer
    assert pointer["folders"] == [f"models/baseline/{seed}" for seed in SEEDS]
    evaluation = read_json(built.folder / PROJECT.evaluations / "baseline.json")
    assert point["test"] == evaluation["pooled"]["ensemble"] != evaluation["pooled"]["operating_point"]
    # What is fitted on single models is applied unchanged.
    assert point.items() >= evaluation["fitted"]["operating_point"].items()
    assert pointer["effective_prior"] == evaluation["fitted"]["effective_prior"]
    card = (built.folder / PROJECT.model_card).read_text(encoding="utf-8")
    for words in ("the seeds 0, 1 and 2, as the mean of their logits", "apply to the mean unchanged", "models/baseline/2"):
        assert words in card


def test_the_deployed_ensemble_scores_with_the_mean_of_its_members(deployed: Project) -> None:
    folder = deployed.folder / PROJECT.deployed / "0001"
    manifest = read_json(folder / MANIFEST)
    assert manifest["seeds"] == SEEDS and len(manifest["lineage"]["models"]) == 3
    model = ballast.load_deployed(deployed.folder / PROJECT.deployed)
    assert isinstance(model.model, EnsembleModel) and model.model.shared is not None and model.model.shared.layers == 1
    texts = traffic({"ham": 30, "spam": 10})["text"].tolist()
    apart = [ballast.load(deployed.folder / f"models/baseline/{seed}").logits(texts) for seed in SEEDS]
    np.testing.assert_allclose(model.model.logits(texts), mean_logits(apart), atol=1e-5)
    corrected = model.version.corrected(mean_logits(apart))
    np.testing.assert_allclose(model.predict_proba(texts), softmax(corrected, axis=1), atol=1e-5)
    reference = pd.read_parquet(folder / REFERENCE)
    saved = [read_arrays(deployed.folder / PROJECT.logits / f"baseline/{seed}.npz") for seed in SEEDS]
    columns = ["logit_ham", "logit_spam"]
    # -1 stands for all trainings together.
    test = reference.loc[(reference["split"] == "test") & (reference["training"] == -1), columns].to_numpy()
    np.testing.assert_allclose(test, mean_logits([arrays["test"] for arrays in saved]), atol=1e-6)
    held_out = reference.loc[reference["split"] == "validation", columns].to_numpy()
    np.testing.assert_allclose(held_out, np.concatenate([arrays["validation"] for arrays in saved]), atol=1e-6)


# Libraries that the watch imports use names that others have deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_windows_are_scored_and_watched_with_an_ensemble(deployed: Project) -> None:
    messages = traffic({"ham": 300, "spam": 60})
    score(deployed, "w1", messages)
    scored = pd.read_parquet(deployed.folder / PROJECT.scored / "w1.parquet")
    model = ballast.load_deployed(deployed.folder / PROJECT.deployed)
    np.testing.assert_allclose(scored["p_spam"], model.predict_proba(messages["text"])[:, 1], atol=1e-6)
    watched = watch(deployed, "w1")
    assert watched["n"] == len(messages) and watched["decision"] in ("steady", "correct", "retrain", "investigate")
    again = deployed.stage_here("production.promote", **{"source": Path(), "reason": "promote"})
    assert again.code == 0 and again.stdout.strip() == "0001", "the same content is not deployed twice"


def test_a_corrected_ensemble_is_tested_as_it_is_deployed(deployed: Project) -> None:
    with contextlib.chdir(deployed.folder):
        version = read_version("0001")
        point = operating_point_for(version.manifest["production_prior"], version)
    # The same prior gives the same metrics again: on test those of the mean, not those of its members.
    for part in ("test", "out_of_fold"):
        for name, estimate in version.manifest["operating_point"][part].items():
            assert point[part][name] == pytest.approx(estimate, abs=1e-6, nan_ok=True), (part, name)


def test_a_member_of_another_run_is_refused(deployed: Project) -> None:
    path = next((deployed.folder / "models/baseline/1").glob("*.safetensors"))
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    failed = deployed.stage_here("production.promote", **{"source": Path(), "reason": "promote"})
    path.write_bytes(before)
    assert "models/baseline/1" in failed.error and "sha256" in failed.error


@pytest.fixture(scope="module")
def levers(built: Project) -> list[dict[str, Any]]:
    for stage in ("errors", "levers"):
        done = built.stage_here(stage)
        assert done.code == 0, done.stderr
    found: list[dict[str, Any]] = json.loads((built.folder / PROJECT.levers).read_text(encoding="utf-8"))
    return found


def test_each_lever_has_a_gain_or_the_command_that_measures_it(levers: list[dict[str, Any]]) -> None:
    assert {lever["lever"] for lever in levers} == LEVERS and {lever["metric"] for lever in levers} == {"macro_f1"}
    for lever in levers:
        assert set(lever) == {"lever", "description", "metric", "gain", "cost", "in_use", "measured_by", "note"}
        gain = lever["gain"]
        if gain is None:
            assert lever["measured_by"] or lever["note"], lever
        else:
            assert gain["low"] <= gain["value"] <= gain["high"] and lever["measured_by"] is None
    by_name = {lever["lever"]: lever for lever in levers}
    assert by_name["A larger encoder"]["measured_by"] == "make study NAME=encoders"
    assert by_name["Correct wrong labels"]["gain"] is None, "only a reader can say which suspects are wrong"
    assert by_name["Average the seeds"]["in_use"] and by_name["Average the seeds"]["gain"] is not None
    assert by_name["Another technique"]["gain"] is None and not by_name["Another technique"]["in_use"]


def test_the_gain_of_the_ensemble_is_that_of_the_evaluation(built: Project, levers: list[dict[str, Any]]) -> None:
    pooled = read_json(built.folder / PROJECT.evaluations / "baseline.json")["pooled"]
    expected = pooled["ensemble"]["macro_f1"]["value"] - pooled["operating_point"]["macro_f1"]["value"]
    [gain] = [lever["gain"] for lever in levers if lever["lever"] == "Average the seeds"]
    assert gain["value"] == pytest.approx(expected, abs=1e-6)


def test_equal_inputs_give_equal_levers(built: Project, levers: list[dict[str, Any]]) -> None:
    before = (built.folder / PROJECT.levers).read_bytes()
    assert built.stage_here("levers").code == 0
    assert (built.folder / PROJECT.levers).read_bytes() == before
