"""Trained and deployed models as scikit-learn users expect them: labels, probabilities, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

import ballast
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models import folder as models
from ballast.models.base import Model
from ballast.models.deployed import DeployedModel
from ballast.models.tfidf import TfidfModel
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.deployed import deploy, prior_model, tfidf, traffic
from tests.project import Project, corpus

LABELS = ["ham", "spam"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    models.save(tfidf(corpus({"ham": 60, "spam": 30})), folder, {})
    return ballast.load(folder)


def test_a_model_predicts_labels_and_probabilities(model: Model) -> None:
    texts = list(corpus({"ham": 9, "spam": 6}, seed=1)["text"])
    posteriors, labels = model.predict_proba(texts), model.predict(texts)
    assert isinstance(model, TfidfModel) and model.classes_.tolist() == model.labels == LABELS
    assert posteriors.dtype == np.float64 and posteriors.shape == (15, 2)
    np.testing.assert_array_equal(posteriors, softmax(model.logits(texts).astype(np.float64), axis=1))
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-12)
    assert labels.tolist() == [LABELS[index] for index in posteriors.argmax(axis=1)] and set(labels) == set(LABELS)
    for same in (tuple(texts), np.array(texts), np.array(texts, dtype=object), pd.Series(texts), iter(texts)):
        np.testing.assert_array_equal(model.predict_proba(same), posteriors)


def test_no_texts_have_no_predictions(model: Model) -> None:
    assert model.predict_proba([]).shape == (0, 2) and model.predict([]).shape == (0,)


BAD_TEXTS: dict[str, tuple[Any, str]] = {
    "a single string": ("hello", r"texts: expected a list of strings, got a single string; pass \[text\]"),
    "bytes": (b"hello", r"got a single string; pass \[text\]"),
    "no list": (3, "texts: expected a list of strings, got int"),
    "a mapping": ({"hello": 1}, "texts: expected a list of strings, got dict"),
    "missing value": (["hello", None], r"texts\[1\]: expected a string, got NoneType; convert or drop it"),
    "missing value of pandas": (pd.Series(["a", "b", None]), r"texts\[2\]: expected a string, got float"),
    "lists": ([["hello"]], r"texts\[0\]: expected a string, got list"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_wrong_texts_are_named(name: str, model: Model, tmp_path: Path) -> None:
    texts, words = BAD_TEXTS[name]
    deploy(tmp_path, prior_model({"ham": 0.5, "spam": 0.5}))
    deployed = ballast.load_deployed(tmp_path / PROJECT.deployed)
    for method in (model.predict, model.predict_proba, deployed.predict, deployed.predict_proba, deployed.logits):
        with pytest.raises(UserError, match=words):
            method(texts)


@pytest.fixture
def deployed(workspace: Project) -> Path:
    """A deployed model with a prior to correct to and an operating point other than the most probable class."""
    changes = {
        "effective_prior": {"ham": 0.7, "spam": 0.3},
        "production_prior": {"ham": 0.95, "spam": 0.05},
        "operating_point": {"costs": {"ham": {"ham": 0.0, "spam": 1.0}, "spam": {"ham": 7.0, "spam": 0.0}}},
    }
    return deploy(workspace.folder, tfidf(corpus({"ham": 60, "spam": 30})), **changes)


def test_a_deployed_model_gives_what_the_pipeline_writes(deployed: Path, workspace: Project) -> None:
    messages = traffic({"ham": 40, "spam": 20})
    messages = pd.concat([messages, messages.head(9).assign(id=[f"again-{row}" for row in range(9)])])
    workspace.edit({"production.score.id_column": "id"})
    workspace.write("w.parquet", messages[["id", "text"]])
    done = workspace.stage_here("score", source="w.parquet", window="w")
    assert done.code == 0, done.stderr
    written = pd.read_parquet(workspace.folder / PROJECT.scored / "w.parquet")
    texts = written["text"].tolist()
    for folder in (deployed, deployed.parent):
        model = ballast.load_deployed(folder)
        assert isinstance(model, DeployedModel) and model.version.name == "0001"
        assert model.classes_.tolist() == model.labels == LABELS
        posteriors = model.predict_proba(texts)
        np.testing.assert_array_equal(posteriors, written[["p_ham", "p_spam"]].to_numpy())
        assert model.predict(texts).tolist() == written["label"].tolist()
        assert (posteriors.argmax(axis=1) != (written["label"] == "spam")).any(), "the operating point decides"
        np.testing.assert_array_equal(softmax(model.logits(texts), axis=1), posteriors)


def test_the_current_version_is_that_of_the_pointer(deployed: Path, workspace: Project) -> None:
    pointer = deployed.parent / "current.json"
    history = read_json(pointer)["history"]
    deploy(workspace.folder, prior_model({"ham": 0.5, "spam": 0.5}), "0002")
    later = read_json(pointer)["history"]
    write_json(pointer, {"version": "0001", "history": history + later})
    assert ballast.load_deployed(deployed.parent).version.name == "0001"
    assert ballast.load_deployed(deployed.parent / "0002").version.name == "0002"


def test_folders_that_hold_no_deployed_model_are_named(deployed: Path, tmp_path: Path) -> None:
    for folder, words in (
        (tmp_path / "gone", "gone: no such folder; expected production/deployed or one of its versions"),
        (deployed / "manifest.json", "manifest.json: is a regular file; expected a folder"),
        (deployed.parents[1], "holds neither current.json nor manifest.json; expected production/deployed or one of its"),
        (deployed / "model", "0001/model: a trained model, not a deployed version; use ballast.load$"),
    ):
        with pytest.raises(UserError, match=words):
            ballast.load_deployed(folder)


def test_what_is_no_trained_model_is_named(deployed: Path, tmp_path: Path) -> None:
    for folder, words in (
        (tmp_path / "gone", "gone/manifest.json: no such file; expected the manifest of a model folder"),
        (deployed / "manifest.json", "manifest.json: is a regular file; expected a folder"),
        (deployed, "0001: a deployed version, not a trained model; use ballast.load_deployed"),
        (deployed.parent, "deployed: a folder of versions, not a trained model; use ballast.load_deployed"),
    ):
        with pytest.raises(UserError, match=words):
            ballast.load(folder)
    assert ballast.load(deployed / "model").labels == LABELS


def test_files_of_a_deployed_model_are_checked(deployed: Path) -> None:
    manifest, pointer = deployed / "manifest.json", deployed.parent / "current.json"
    content = read_json(manifest)
    write_json(manifest, content | {"production_prior": {"ham": 0.5, "spam": 0.5}})
    for folder in (deployed, deployed.parent):
        with pytest.raises(UserError, match=r"manifest.json: its sha256 is .*current.json says .*; deploy the model again"):
            ballast.load_deployed(folder)
    write_json(manifest, content)
    weights = deployed / "model/model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\7")
    with pytest.raises(UserError, match=r"model.safetensors: sha256 is .*manifest.json says"):
        ballast.load_deployed(deployed)
    weights.unlink()
    with pytest.raises(UserError, match=r"model.safetensors: missing, but .*manifest.json names it"):
        ballast.load_deployed(deployed)
    weights.write_bytes(good)
    pointer.write_text("{}")
    with pytest.raises(UserError, match=r"current.json: it has no sha256"):
        ballast.load_deployed(deployed)
    pointer.unlink()
    assert ballast.load_deployed(deployed).version.sha256 == file_sha256(manifest)
    manifest.unlink()
    with pytest.raises(UserError, match="holds neither"):
        ballast.load_deployed(deployed)


def random_head(encoder: Path, kind: str) -> Model:
    """An untrained model of a kind that reads texts with an encoder."""
    from ballast.models.embedding import Embedder, fit_linear_head, fit_one_class
    from ballast.models.encoder import choose_device, new_encoder_model

    if kind == "encoder":
        return new_encoder_model(str(encoder), LABELS, 16, choose_device("cpu"))
    embedder = Embedder.from_pretrained(str(encoder), "cpu", 16)
    embeddings = embedder.embed(list(corpus({"ham": 6, "spam": 6})["text"]))
    if kind == "one_class":
        return fit_one_class(embedder, embeddings, LABELS, trained_on=0, nu=0.5)
    return fit_linear_head(embedder, embeddings, np.arange(12) % 2, LABELS, inverse_penalty=1.0)


@pytest.mark.parametrize("kind", ["encoder", "embedding", "one_class", "prior"])
def test_every_kind_of_model_predicts_after_loading(kind: str, tiny_encoder: Path, tmp_path: Path) -> None:
    made = prior_model({"ham": 0.7, "spam": 0.3}) if kind == "prior" else random_head(tiny_encoder, kind)
    models.save(made, tmp_path, {})
    model = ballast.load(tmp_path)
    texts = list(corpus({"ham": 5, "spam": 5}, seed=2)["text"])
    posteriors = model.predict_proba(texts)
    np.testing.assert_allclose(posteriors, softmax(made.logits(texts).astype(np.float64), axis=1), rtol=1e-5)
    assert model.predict(texts).tolist() == [LABELS[index] for index in posteriors.argmax(axis=1)]
    assert model.predict_proba([]).shape == (0, 2) and model.predict([]).tolist() == []
