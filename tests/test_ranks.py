"""One training on two processes, and in micro-batches: the gradients and weights of one process with all at once."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ballast.exceptions import UserError
from ballast.models.encoder import new_encoder_model, pad, tokenize
from ballast.models.heads import head_of, set_head
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.techniques import build, technique_names
from ballast.training.fine_tune import connect_device, fine_tune
from ballast.training.gradients import BatchGradients
from ballast.training.launching import is_main_process, launch, local_process_count
from ballast.training.ranks import Ranks
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.training_sections import Train
from tests.project import TINY_TRAINING, Outcome, Project, corpus
from tests.project import tiny_encoder as encoder_of
from tests.trainings import in_training, sampled_project, started

NAMES = ["ham", "spam", "odd"]
MESSAGES = corpus({"ham": 24, "spam": 9, "odd": 4})
TEXTS = MESSAGES["text"].tolist()
LABELS = MESSAGES["label"].map(NAMES.index).to_numpy()
PARAMETERS = {"class_weight": {"weights": {"ham": 0.5, "spam": 10.0, "odd": 3.0}}}
ONLY_TWO_CLASSES = "one_class"
TECHNIQUES = {
    name: build(name, np.bincount(LABELS), NAMES, PARAMETERS.get(name, {}))
    for name in technique_names()
    if name != ONLY_TWO_CLASSES
}
FINE_TUNED = {name: technique for name, technique in TECHNIQUES.items() if technique.fit is None}
# Each loss and each head once.
DIFFERENT = {(technique.loss, technique.head): name for name, technique in reversed(FINE_TUNED.items())}.values()
# The last batches of an epoch of 37 rows: 5 rows for two processes, and 1 row, which leaves one of them without any.
EIGHT, NINE = 8, 9
CASES = {
    **{name: (FINE_TUNED[name], {"batch_size": EIGHT}) for name in ("upsample_downweight", "balanced_sampler", "ldam", "lade")},
    "a process without rows": (FINE_TUNED["class_weight"], {"batch_size": NINE}),
    "frozen layers": (FINE_TUNED["lade"], {"batch_size": NINE, "frozen_layers": 1}),
}
# Rows to take gradients of at once: all on one process, uneven, even.
BATCHES = [np.array([3]), np.array([5, 0, 9]), np.arange(12), np.arange(37)]
# So many rows at a time are more than the made-up memory of the second process holds.
MOST = 3


def drawn(technique: Technique) -> TrainingData:
    rows, weights = technique.sample(LABELS, np.random.default_rng(0))
    # Weights that differ within a batch, and whose mean is not 1.
    weights = weights * (1 + rows % 5)
    return TrainingData(texts=[TEXTS[row] for row in rows], labels=LABELS[rows], weights=weights, label_names=NAMES)


def settings_of(encoder: str, **changes: object) -> TrainingSettings:
    settings = TrainingSettings(
        model=encoder, epochs=2, batch_size=EIGHT, learning_rate=1e-3, max_length=16, seed=0, precision="fp32", device="cpu"
    )
    return replace(settings, **changes)


def weights_of(encoder: str, technique: Technique, **changes: object) -> dict[str, torch.Tensor]:
    """The weights after a training."""
    return dict(fine_tune(technique, drawn(technique), settings_of(encoder, **changes)).network.state_dict())


def gradients_of(encoder: str, name: str, ranks: Ranks) -> list[dict[str, torch.Tensor]]:
    """The gradients of each batch's loss by the untrained weights."""
    technique = FINE_TUNED[name]
    torch.manual_seed(0)
    model = new_encoder_model(encoder, NAMES, 16, torch.device("cpu"))
    set_head(model.network, technique.head(head_of(model.network, len(NAMES))))
    ids = tokenize(model.tokenizer, TEXTS, 16)
    labels, weights = torch.tensor(LABELS), 1 + torch.arange(len(LABELS)) % 5

    def logits(rows: np.ndarray) -> torch.Tensor:
        return model.network(**pad(ids, rows, model.tokenizer.pad_token_id, torch.device("cpu"))).logits

    def loss(logits: torch.Tensor, rows: np.ndarray, step: int) -> torch.Tensor:
        return technique.loss(logits, labels[rows], weights[rows].float(), 0.9).sum() / (len(rows) * 2.7)

    named = {name: each for name, each in model.network.named_parameters() if each.requires_grad}
    found = []
    for rows in BATCHES:
        BatchGradients(logits, loss, list(named.values()), ranks, 0)(rows, 0)
        found.append({name: each.grad for name, each in named.items() if each.grad is not None})
        model.network.zero_grad()
    return found


class LittleMemory(nn.Linear):
    """A head that runs out of memory, as CUDA says it, when it is to keep more than so many rows for its gradient."""

    most: int
    backward: bool

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if len(features) > self.most and features.requires_grad:
            if not self.backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            features.register_hook(self.no_memory)
        return super().forward(features)

    @staticmethod
    def no_memory(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def short_of_memory(technique: Technique, most: int, *, backward: bool = False) -> Technique:
    """The technique on a device that holds at most so many rows."""

    def head(linear: nn.Linear) -> nn.Linear:
        made = LittleMemory(linear.in_features, linear.out_features)
        made.load_state_dict(technique.head(linear).state_dict())
        made.most, made.backward = most, backward
        return made

    return replace(technique, head=head)


def in_a_process(encoder: str, folder: str) -> None:
    """What each of two processes does; the first one writes what it has."""
    # The children of a test run do not show its warnings as errors.
    found: dict[str, Mapping[str, torch.Tensor]] = {
        name: weights_of(encoder, technique, **changes) for name, (technique, changes) in CASES.items()
    }
    connect_device(settings_of(encoder))
    ranks = Ranks.current()
    for name in DIFFERENT:
        for at, gradients in enumerate(gradients_of(encoder, name, ranks)):
            found[f"gradients of {name} {at}"] = gradients
    short = FINE_TUNED["lade"] if ranks.is_main else short_of_memory(FINE_TUNED["lade"], MOST)
    found["short of memory"] = weights_of(encoder, short)
    said = {"count": ranks.world_size}
    try:
        ranks.check_same(f"the commit of process {ranks.rank}")
    except UserError as error:
        said["differ"] = str(error)
    ranks.check_same("the same commit")
    if is_main_process():
        flat = {f"{name}/{key}": each.contiguous() for name, tensors in found.items() for key, each in tensors.items()}
        save_file(flat, Path(folder) / "found.safetensors")
        (Path(folder) / "said.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def on_two(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    launch(2, in_a_process, str(tiny_encoder), str(folder))
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, each in load_file(folder / "found.safetensors").items():
        case, _, key = name.rpartition("/")
        found.setdefault(case, {})[key] = each
    said = json.loads((folder / "said.json").read_text())
    assert said["count"] == 2 and "bring all nodes to the same commit" in said["differ"]
    return found


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, rtol: float, atol: float) -> None:
    assert set(found) == set(expected)
    for name, each in expected.items():
        # A softmax does not notice these: their gradient is rounding, of which Adam makes steps as of any other.
        if not name.endswith("attention.self.key.bias"):
            torch.testing.assert_close(found[name], each, rtol=rtol, atol=atol, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("name", DIFFERENT)
def test_two_processes_have_the_gradients_of_one(
    on_two: dict[str, dict[str, torch.Tensor]], tiny_encoder: Path, name: str
) -> None:
    for at, expected in enumerate(gradients_of(str(tiny_encoder), name, Ranks())):
        largest = max(float(each.abs().max()) for each in expected.values())
        assert largest > 1e-3
        assert_same(on_two[f"gradients of {name} {at}"], expected, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("name", [*CASES, "short of memory"])
def test_two_processes_train_the_weights_of_one(
    on_two: dict[str, dict[str, torch.Tensor]], tiny_encoder: Path, name: str
) -> None:
    technique, changes = CASES["lade" if name == "short of memory" else name]
    assert_same(on_two[name], weights_of(str(tiny_encoder), technique, **changes), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "backward"), [("class_weight", False), ("lade", True)])
def test_short_of_memory_it_trains_the_same_weights_in_micro_batches(
    tiny_encoder: Path, capfd: pytest.CaptureFixture[str], name: str, backward: bool
) -> None:
    technique = replace(FINE_TUNED[name], head=lambda linear: linear)
    expected = weights_of(str(tiny_encoder), technique)
    capfd.readouterr()
    found = weights_of(str(tiny_encoder), short_of_memory(technique, MOST, backward=backward))
    assert_same(found, expected, rtol=1e-3, atol=1e-5)
    lines = [line for line in capfd.readouterr().err.splitlines() if "out of memory" in line]
    assert lines == [
        f"train: out of memory with {size} messages at a time; continuing with {size // 2}, the batch size stays 8"
        for size in (8, 4)
    ]


def test_without_memory_for_one_message_it_says_what_helps(tiny_encoder: Path) -> None:
    with pytest.raises(UserError, match=r"with one message at a time: CUDA out of memory.*; lower max_length"):
        weights_of(str(tiny_encoder), short_of_memory(FINE_TUNED["baseline"], 0))


def test_without_memory_for_the_model_it_says_so(tiny_encoder: Path) -> None:
    def head(linear: nn.Linear) -> nn.Linear:
        return nn.Linear(linear.in_features, 2**45)

    with pytest.raises(UserError, match=r"^out of memory: .*choose a smaller model"):
        weights_of(str(tiny_encoder), replace(FINE_TUNED["baseline"], head=head))


def test_as_many_processes_as_asked_for_or_gpus() -> None:
    assert local_process_count("auto", "cpu") == 1
    assert local_process_count(3, "cpu") == 3
    with pytest.raises(UserError, match=r"processes must be at most the number of GPUs of this machine, \d+, got 99"):
        local_process_count(99, "cuda")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Project:
    """A project whose next stage is the training of lade on two processes."""
    return sampled_project(tmp_path_factory.mktemp("sampled"), tiny_encoder, "lade", {"train.processes": 2})


@pytest.mark.slow
def test_the_stage_trains_on_two_processes_what_it_trains_on_one(sampled: Project) -> None:
    arrays = []
    for processes in (2, 1):
        sampled.edit({"train.processes": processes, "train.epochs": 2})
        done = sampled.stage("train", "lade", "0")
        assert done.code == 0, done.stderr
        manifest = read_json(sampled.folder / PROJECT.models / "lade/0/manifest.json")
        assert not set(manifest["params"]["train"]) & Train.PLACE
        with np.load(sampled.folder / PROJECT.logits / "lade/0.npz") as saved:
            arrays.append(dict(saved))
    for split in ("validation", "test", "train"):
        np.testing.assert_allclose(arrays[0][split], arrays[1][split], atol=1e-4)


@pytest.mark.slow
def test_an_error_on_all_processes_is_one_line(sampled: Project) -> None:
    sampled.edit({"train.processes": 2, "train.epochs": 2, "train.max_length": 100})
    assert "params.yaml: train.max_length must be at most" in sampled.stage("train", "lade", "0").error
    sampled.edit({"train.max_length": TINY_TRAINING["max_length"]})


@pytest.fixture
def endless(sampled: Project) -> Project:
    """The same, with a training that does not end by itself and writes checkpoints all the time."""
    shutil.rmtree(sampled.folder / PROJECT.checkpoints, ignore_errors=True)
    sampled.edit({"train.processes": 2, "train.epochs": 10_000, "train.checkpoint_minutes": 1e-9})
    return sampled


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_takes_the_others_down_with_one_line(endless: Project, number: signal.Signals) -> None:
    with started(endless, "lade") as launcher:
        ranks = in_training(endless, launcher, "lade")
        assert len(ranks) == 2
        ranks[1].send_signal(number)
        stderr = launcher.communicate(timeout=60)[1]
        assert psutil.wait_procs(ranks, timeout=20)[1] == []
    error = Outcome(launcher.returncode, stderr).error
    reason = ", probably because memory ran out" if number == signal.SIGKILL else ""
    assert f"of the training was killed by {number.name}{reason}; the others were stopped" in error


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_stopped_leaves_no_process(endless: Project, number: signal.Signals) -> None:
    with started(endless, "lade") as launcher:
        ranks = in_training(endless, launcher, "lade")
        launcher.send_signal(number)
        assert launcher.wait(timeout=60) == (-number if number == signal.SIGKILL else 128 + number)
        assert len(ranks) == 2 and psutil.wait_procs(ranks, timeout=20)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("differs", ["nothing", "rate", "encoder"])
def test_two_nodes_with_a_clone_each_train_together(tmp_path: Path, tiny_encoder: Path, differs: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for index in (0, 1):
        (tmp_path / f"node{index}").mkdir()
    nodes = [sampled_project(tmp_path / f"node{index}", tiny_encoder, "lade", {}) for index in (0, 1)]
    if differs == "rate":
        nodes[1].edit({"train.learning_rate": 0.1})
    elif differs == "encoder":
        nodes[1].edit({"train.model": str(encoder_of(tmp_path / "deeper", layers=3))})
    variables = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    with ThreadPoolExecutor() as pool:
        ends = [
            pool.submit(node.stage, "train", "lade", "0", PET_NODE_RANK=str(index), **variables)
            for index, node in enumerate(nodes)
        ]
    done = [each.result() for each in ends]
    if differs != "nothing":
        said = "differ in settings, data or sources; bring all nodes to the same commit"
        assert all(said in each.error for each in done), done
        return
    assert [each.code for each in done] == [0, 0], [each.stderr for each in done]
    assert (nodes[0].folder / PROJECT.models / "lade/0/model.safetensors").is_file() and not (
        nodes[1].folder / PROJECT.models
    ).exists()
    assert nodes[1].stage("train", "lade", "0").code == 0
    logits = [np.load(node.folder / PROJECT.logits / "lade/0.npz")["test"] for node in nodes]
    np.testing.assert_allclose(*logits, atol=1e-4)
