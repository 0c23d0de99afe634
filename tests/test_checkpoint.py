"""Trainings that are interrupted go on from their checkpoint to the same bytes; no other file is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save_file

from ballast.models.encoder import EncoderModel
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.techniques import build
from ballast.training.checkpoint import Checkpoint
from ballast.training.fine_tune import fine_tune
from stages.store.project import PROJECT
from tests.project import Project, corpus
from tests.trainings import sampled_project, started, wait_until

NAMES = ["ham", "spam"]
MESSAGES = corpus({"ham": 30, "spam": 15})
LABELS = MESSAGES["label"].map(NAMES.index).to_numpy()
DATA = TrainingData(texts=MESSAGES["text"].tolist(), labels=LABELS, weights=np.ones(len(LABELS)), label_names=NAMES)
ALWAYS = 1e-9
STEPS = 18


class Interrupted(Exception):  # noqa: N818
    """Something ended the training."""


def settings_of(
    encoder: Path, path: Path | None, *, minutes: float = ALWAYS, told: str = "a", **changes: object
) -> TrainingSettings:
    settings = TrainingSettings(
        model=str(encoder), epochs=3, batch_size=8, learning_rate=1e-3, max_length=16, seed=0, device="cpu"
    )
    return replace(settings, checkpoint=None if path is None else Checkpoint(path, minutes, told), **changes)


def interrupted_at(step: int) -> Callable[[int, int, float, float], None]:
    def on_step(at: int, steps: int, loss: float, rate: float) -> None:
        if at == step:
            raise Interrupted

    return on_step


def assert_equal(found: EncoderModel, expected: EncoderModel) -> None:
    weights = found.network.state_dict()
    assert all(torch.equal(weights[name], each) for name, each in expected.network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "changes", "step"),
    [("lade", {}, 3), ("balanced_sampler", {}, 15), ("lade", {"dropout": 0.3}, 6), ("ldam", {"frozen_layers": 1}, 9)],
)
def test_an_interrupted_training_ends_with_the_same_weights_and_curve(
    tiny_encoder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, object],
    step: int,
) -> None:
    # A point of the curve is then the mean of three steps, of which the checkpoint holds two.
    monkeypatch.setattr("ballast.training.loop.CURVE_POINTS", STEPS // 3)
    technique = build(name, np.bincount(LABELS), NAMES, {})
    path = tmp_path / "made/0.safetensors"
    curves: list[list[tuple[int, int, float, float]]] = [[], []]
    whole, rest = (replace(settings_of(tiny_encoder, path, **changes), on_step=lambda *at, c=c: c.append(at)) for c in curves)
    expected = fine_tune(technique, DATA, replace(whole, checkpoint=None))
    with pytest.raises(Interrupted):
        fine_tune(technique, DATA, replace(whole, on_step=interrupted_at(step)))
    capfd.readouterr()
    torch.manual_seed(99)
    found = fine_tune(technique, DATA, rest)
    assert f"train: resuming at step {step - 1} of {STEPS}, from {path}" in capfd.readouterr().err
    assert_equal(found, expected)
    assert [tuple(at) for at in curves[1]] == curves[0] and len(curves[0]) == STEPS // 3
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.fixture
def left(tiny_encoder: Path, tmp_path: Path) -> Path:
    """A checkpoint of an interrupted training."""
    path = tmp_path / "0.safetensors"
    with pytest.raises(Interrupted):
        fine_tune(Technique(), DATA, settings_of(tiny_encoder, path, on_step=interrupted_at(9)))
    return path


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def without_words(path: Path) -> None:
    save_file(load_file(path), path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flipped, "its sha256 is wrong"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint"),
    "text": (lambda path: path.write_bytes(b"#!/bin/sh" * 99), "not a checkpoint"),
    "no words": (without_words, "not a checkpoint"),
    "folder": (folder, "Is a directory"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used(
    tiny_encoder: Path, left: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    do, said = DAMAGES[damage]
    do(left)
    found = fine_tune(Technique(), DATA, settings_of(tiny_encoder, left, minutes=99))
    lines = [line for line in capfd.readouterr().err.splitlines() if str(left) in line]
    assert len(lines) == 1 and f"{left}: checkpoint ignored, the training starts over: " in lines[0] and said in lines[0]
    assert_equal(found, fine_tune(Technique(), DATA, settings_of(tiny_encoder, None)))


@pytest.mark.parametrize("other", ["fingerprint", "weights"])
def test_a_checkpoint_of_another_training_is_not_used(
    tiny_encoder: Path, left: Path, capfd: pytest.CaptureFixture[str], other: str
) -> None:
    changes = {"fingerprint": {"told": "b"}, "weights": {"seed": 1}}[other]
    found = fine_tune(Technique(), DATA, settings_of(tiny_encoder, left, minutes=99, **changes))
    assert (
        "checkpoint ignored, the training starts over: it has other settings, data, sources or weights"
        in capfd.readouterr().err
    )
    assert_equal(found, fine_tune(Technique(), DATA, settings_of(tiny_encoder, None, seed=changes.get("seed", 0))))


def test_a_short_training_writes_none_and_where_none_can_be_written_it_goes_on(
    tiny_encoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = fine_tune(Technique(), DATA, settings_of(tiny_encoder, tmp_path / "0.safetensors", minutes=10))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "no folder").touch()
    path = tmp_path / "no folder/0.safetensors"
    assert_equal(fine_tune(Technique(), DATA, settings_of(tiny_encoder, path)), expected)
    assert f"{path}: cannot write the checkpoint" in capfd.readouterr().err


def test_a_checkpoint_takes_the_place_of_the_last_one_and_is_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "0.safetensors", ALWAYS, "a")
    (tmp_path / ".0.safetensors.partial").write_bytes(b"left by a kill")
    for step in (1, 2):
        checkpoint.write({"weight.a": torch.full((2,), float(step))}, {"step": step})
    assert [each.name for each in tmp_path.iterdir()] == ["0.safetensors"] and checkpoint.read() is not None
    assert load_file(checkpoint.path)["weight.a"].tolist() == [2, 2]
    (tmp_path / ".0.safetensors.partial").touch()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == [] and checkpoint.read() is None


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stage_that_is_killed_goes_on_to_the_same_files(tmp_path: Path, tiny_encoder: Path, processes: int) -> None:
    changes = {"train.epochs": 60, "train.processes": processes}
    project: Project = sampled_project(tmp_path, tiny_encoder, "lade", changes)
    assert (done := project.stage("train", "lade", "0")).code == 0, done.stderr
    assert not (tmp_path / PROJECT.checkpoints).exists()
    curves = [path.relative_to(tmp_path) for path in sorted((tmp_path / PROJECT.curves / "lade/0").rglob("*.tsv"))]
    files = [PROJECT.models / "lade/0/model.safetensors", PROJECT.logits / "lade/0.npz", *curves]
    expected = {path: (tmp_path / path).read_bytes() for path in files}
    assert [path.name for path in curves] == ["learning_rate.tsv", "loss.tsv"]
    for path in files:
        (tmp_path / path).unlink()
    checkpoint = tmp_path / PROJECT.checkpoints / "lade/0.safetensors"
    project.edit({"train.checkpoint_minutes": ALWAYS})
    with started(project, "lade") as training:
        wait_until(checkpoint.exists, training)
        # Not load_file, which would find another file's size where the training puts the next checkpoint meanwhile.
        wait_until(lambda: load(checkpoint.read_bytes())["0.step"] > 50, training)
        training.kill()
    project.edit({"train.checkpoint_minutes": 10.0})
    done = project.stage("train", "lade", "0")
    assert done.code == 0, done.stderr
    assert "train: resuming at step" in done.stderr
    assert {path: (tmp_path / path).read_bytes() for path in files} == expected
    assert not checkpoint.exists()
    assert list(tmp_path.rglob("*.partial")) == [], "what the killed one left"
