"""The training loop and what it leaves on disk, with a tiny random encoder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

import ballast
import ballast.io.digest as digest
from ballast.compute.batching import shuffled_batches, sorted_batches
from ballast.compute.memory import is_out_of_memory
from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import cast_linear_weights, use_bf16
from ballast.exceptions import UserError
from ballast.models import folder as models
from ballast.models import frozen_layers, shards
from ballast.models.encoder import (
    FIRST_TOKEN_HEADS,
    EncoderModel,
    check_positions,
    choose_device,
    new_encoder_model,
    pad,
    skip_unread_states,
)
from ballast.models.frozen_layers import (
    STACKED_ARCHITECTURES,
    Arrays,
    HiddenStates,
    can_cache,
    compute_hidden_states,
    freeze,
    with_layers,
)
from ballast.models.heads import NormalisedLinear, head_of, set_head
from ballast.models.pretrained import minilm_folder
from ballast.technique import Technique, TrainingData, TrainingSettings, cross_entropy
from ballast.training.fine_tune import fine_tune, set_dropout
from stages.store.frozen_states import MOST_FILES, cached_states
from stages.store.project import PROJECT

NAMES = ["ham", "spam"]
TEXTS = [f"{'free prize call now' if row % 4 == 0 else 'see you at the meeting'} {row}" for row in range(48)]
LABELS = np.array([int(row % 4 == 0) for row in range(48)])


def data(weights: np.ndarray | None = None) -> TrainingData:
    return TrainingData(
        texts=TEXTS, labels=LABELS, weights=np.ones(len(TEXTS)) if weights is None else weights, label_names=NAMES
    )


@pytest.fixture
def training(tiny_encoder: Path) -> TrainingSettings:
    return TrainingSettings(
        model=str(tiny_encoder),
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        max_length=16,
        seed=0,
        device="cpu",
        # What the tests compare differs by more in bf16, which the machine may have.
        precision="fp32",
    )


@pytest.fixture
def trained(training: TrainingSettings) -> EncoderModel:
    return fine_tune(Technique(), data(), training)


def test_one_seed_gives_the_same_weights_and_another_does_not(trained: EncoderModel, training: TrainingSettings) -> None:
    torch.manual_seed(99)
    again = fine_tune(Technique(), data(), training)
    other = fine_tune(Technique(), data(), dataclasses.replace(training, seed=1))
    first = trained.network.state_dict()
    assert all(torch.equal(first[name], each) for name, each in again.network.state_dict().items())
    assert any(not torch.equal(first[name], each) for name, each in other.network.state_dict().items())


def test_it_learns(training: TrainingSettings) -> None:
    losses = []
    harder = dataclasses.replace(
        training, epochs=12, learning_rate=1e-2, on_step=lambda step, steps, loss, rate: losses.append(loss)
    )
    model = fine_tune(Technique(), data(), harder)
    assert losses[-1] < 0.2 < losses[0]
    assert (model.logits(TEXTS).argmax(axis=1) == LABELS).mean() > 0.95


def test_scale_of_all_weights_does_not_matter(trained: EncoderModel, training: TrainingSettings) -> None:
    """The mean weight of the sample divides the loss, so that weights shift attention and not the step size."""
    heavy = fine_tune(Technique(class_weights=np.array([4.0, 4.0])), data(np.full(len(TEXTS), 8.0)), training)
    np.testing.assert_allclose(heavy.logits(TEXTS), trained.logits(TEXTS), atol=1e-4)


def test_class_weights_are_sample_weights(training: TrainingSettings) -> None:
    by_class = fine_tune(Technique(class_weights=np.array([0.5, 3.0])), data(), training)
    by_row = fine_tune(Technique(), data(np.where(LABELS == 1, 3.0, 0.5)), training)
    np.testing.assert_allclose(by_class.logits(TEXTS), by_row.logits(TEXTS), atol=1e-5)


def test_curve_ends_at_the_last_step_with_no_learning_rate_left(training: TrainingSettings) -> None:
    heard = []
    fine_tune(Technique(), data(), dataclasses.replace(training, on_step=lambda *point: heard.append(point)))
    step, steps, loss, rate = heard[-1]
    assert step == steps == 12 and np.isfinite(loss) and rate == 0
    assert max(rate for *_, rate in heard) == pytest.approx(1e-3, rel=0.2)


def test_a_loss_that_is_not_finite_stops_training_in_words(training: TrainingSettings) -> None:
    def infinite(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, progress: float) -> torch.Tensor:
        return cross_entropy(logits, labels, weights, progress) * (torch.inf if progress > 0.5 else 1)

    with pytest.raises(UserError, match=r"learning_rate .* gives a loss of inf at step \d+ of 12; lower it"):
        fine_tune(Technique(loss=infinite), data(), training)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_frozen_layers_stay_and_the_rest_moves(training: TrainingSettings, layers: int) -> None:
    torch.manual_seed(0)
    before = new_encoder_model(training.model, NAMES, 16, torch.device("cpu")).network.state_dict()
    after = fine_tune(Technique(), data(), dataclasses.replace(training, frozen_layers=layers)).network.state_dict()
    moved = {name for name in before if not name.startswith("classifier") and not torch.equal(before[name], after[name])}
    frozen = [f"bert.encoder.layer.{layer}." for layer in range(layers)] + (["bert.embeddings."] if layers else [])
    assert moved and not any(name.startswith(prefix) for name in moved for prefix in frozen)
    assert any(name.startswith("bert.pooler") for name in moved)
    assert any(name.startswith("bert.embeddings.word") for name in moved) == (layers == 0)


def test_more_frozen_layers_than_there_are_is_an_error(training: TrainingSettings) -> None:
    with pytest.raises(UserError, match="frozen_layers must be at most 2, the number of layers of the model, got 3"):
        freeze(new_encoder_model(training.model, NAMES, 16, torch.device("cpu")).network, 3)


@pytest.mark.parametrize("model_type", sorted(STACKED_ARCHITECTURES))
def test_passing_the_frozen_layers_once_changes_neither_logits_nor_gradients(model_type: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes, max_position_embeddings=40, num_labels=3, pad_token_id=1)
    network = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    freeze(network, 2)
    set_dropout(network, 0)
    skip_unread_states(network)
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, 50, length).tolist() for length in (9, 5, 30, 1)]
    ids.append(ids[1])
    rows, classes = np.array([4, 2, 0, 1]), torch.tensor([0, 1, 2, 0])

    def inputs(of: np.ndarray) -> dict[str, torch.Tensor]:
        return pad(ids, of, 1, torch.device("cpu"))

    # The layers that are left are numbered anew.
    name_of = {id(each): name for name, each in network.named_parameters()}

    def logits_and_gradients(
        of: PreTrainedModel, given: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        network.zero_grad()
        logits = of(**given).logits
        torch.nn.functional.cross_entropy(logits, classes).backward()
        return logits, {name_of[id(each)]: each.grad.clone() for each in network.parameters() if each.grad is not None}

    assert can_cache(network, 2, 50) and not can_cache(network, 2, 10**9)
    assert not can_cache(network, 3, 50) and not can_cache(network, 0, 50)
    whole, gradients = logits_and_gradients(network, inputs(rows))
    names = list(network.state_dict())
    lengths = np.array([len(each) for each in ids])
    arrays = compute_hidden_states(network, lengths, inputs, layers=2, bf16=False)
    first, rest = (
        {"values": values, "lengths": lengths}
        for values, lengths in zip(arrays["values"].split([14, 36]), arrays["lengths"].split([2, 3]), strict=True)
    )
    states = HiddenStates.concatenated([(["a", "b"], first), (["c", "d", "e"], rest)], torch.device("cpu"))
    indices = states.indices(["e", "c", "a", "b"])
    assert indices is not None and states.indices(["a", "unknown"]) is None
    np.testing.assert_array_equal(states.lengths(indices), lengths[rows])
    behind, same = logits_and_gradients(with_layers(network, slice(2, None)), states.inputs(indices))
    torch.testing.assert_close(behind, whole)
    assert gradients and set(same) == set(gradients)
    for name, each in gradients.items():
        torch.testing.assert_close(same[name], each)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(**inputs(rows)).logits, whole)


def test_states_that_were_kept_give_the_same_weights_to_the_bit(
    training: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # One text of the sample is not of the corpus, as an augmented one.
    sample = dataclasses.replace(data(), corpus=[*TEXTS[1:], "of another split", TEXTS[5]])
    settings = dataclasses.replace(training, frozen_layers=1, cache=partial(cached_states, PROJECT.states))
    first = fine_tune(Technique(), sample, settings)
    (path,) = PROJECT.states.glob("*.safetensors")
    written = path.read_bytes()

    def not_again() -> Arrays:
        raise AssertionError("they were kept")

    again = fine_tune(
        Technique(),
        sample,
        dataclasses.replace(settings, cache=lambda key, _compute: cached_states(PROJECT.states, key, not_again)),
    )
    assert all(torch.equal(each, again.network.state_dict()[name]) for name, each in first.network.state_dict().items())
    assert path.read_bytes() == written
    for texts in (TEXTS, ["of another split"], ["of no split", *TEXTS]):
        whole = dataclasses.replace(first, upper=None)
        np.testing.assert_allclose(first.logits(texts), whole.logits(texts), atol=1e-5)
    for damaged in (written[:100], written[:-1] + bytes([written[-1] ^ 1])):
        path.write_bytes(damaged)
        fine_tune(Technique(), sample, settings)
        assert path.read_bytes() == written and "is computed again" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    fine_tune(Technique(), sample, settings)
    assert "cannot be cached" in capsys.readouterr().err
    shutil.rmtree(PROJECT.states)
    PROJECT.states.parent.mkdir(exist_ok=True)
    PROJECT.states.touch()
    fine_tune(Technique(), sample, settings)
    assert "cannot be cached" in capsys.readouterr().err


def test_the_oldest_states_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for at in range(MOST_FILES + 2):
        assert cached_states(PROJECT.states, str(at), lambda at=at: {"values": torch.tensor([at])})["values"].item() == at
        os.utime(PROJECT.states / f"{at}.safetensors", (at, at))
    # Read again, so not the oldest any more.
    cached_states(PROJECT.states, "2", lambda: {"values": torch.tensor([-1])})
    cached_states(PROJECT.states, "new", lambda: {"values": torch.tensor([7])})
    assert {each.stem for each in PROJECT.states.glob("*.safetensors")} == {"2", "4", "5", "new"}


def test_states_of_other_layers_and_texts_are_not_confused(training: TrainingSettings) -> None:
    heard: list[str] = []

    def keep(fingerprint: str, compute: Callable[[], Arrays]) -> Arrays:
        heard.append(fingerprint)
        return compute()

    for texts in (TEXTS, TEXTS[1:]):
        model = new_encoder_model(training.model, NAMES, 16, torch.device("cpu"), "fp32")
        model.cache_hidden_states(1, texts, texts, keep)
        assert model.upper is not None
    with torch.no_grad():
        next(model.network.base_model.encoder.layer[0].parameters()).add_(1.0)
    model.cache_hidden_states(1, texts, texts, keep)
    model.cache_hidden_states(1, texts, ["new"], keep)
    assert len(set(heard)) == 3 and heard[-1] == heard[-2]
    # Another head changes none.
    set_head(model.network, NormalisedLinear.like(head_of(model.network, 2), 30.0))
    model.cache_hidden_states(1, texts, texts, keep)
    assert len(set(heard)) == 3
    # What changes states beside weights and texts.
    model.network.config.layer_norm_eps *= 2
    model.cache_hidden_states(1, texts, texts, keep)
    model.precision = "bf16"
    model.cache_hidden_states(1, texts, texts, keep)
    assert len(set(heard)) == 5
    alone = new_encoder_model(training.model, NAMES, 16, torch.device("cpu"))
    alone.cache_hidden_states(2, TEXTS, TEXTS, keep)
    assert alone.upper is None, "nothing is left above all layers"


def test_a_corpus_too_large_to_keep_leaves_the_sample_to_pass_once(
    training: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_encoder_model(training.model, NAMES, 16, torch.device("cpu"))
    monkeypatch.setattr(frozen_layers, "MAXIMUM_BYTES", 4 * 16 * model.network.config.hidden_size * 4)
    model.cache_hidden_states(1, TEXTS, TEXTS[:2], lambda *_: pytest.fail("a corpus too large was kept"))
    assert model.upper is not None and len(model.upper.states.index) == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_cores_changes_rounding_only(training: TrainingSettings, threads: int) -> None:
    """Batches are split over cores; the last of an epoch has fewer rows than the others."""
    settings = dataclasses.replace(training, batch_size=25, epochs=3)
    before = torch.get_num_threads()
    found = []
    try:
        for each in (1, threads):
            torch.set_num_threads(each)
            found.append(fine_tune(Technique(class_weights=np.array([1.0, 3.0])), data(), settings).network.state_dict())
    finally:
        torch.set_num_threads(before)
    for name, each in found[0].items():
        torch.testing.assert_close(found[1][name], each, atol=1e-4, rtol=1e-3)


def test_dropout_is_set_everywhere_and_off_when_scoring(training: TrainingSettings, trained: EncoderModel) -> None:
    set_dropout(trained.network, 0.5)
    np.testing.assert_array_equal(trained.logits(TEXTS), trained.logits(TEXTS))
    dropped = fine_tune(Technique(), data(), dataclasses.replace(training, dropout=0.5))
    assert not np.allclose(dropped.logits(TEXTS), trained.logits(TEXTS))


def test_the_last_linear_layer_is_the_head(training: TrainingSettings) -> None:
    model = new_encoder_model(training.model, ["a", "b", "c"], 16, torch.device("cpu"))
    assert head_of(model.network, 3) is model.network.classifier


def test_only_a_plain_head_has_norms_that_tau_normalisation_could_divide_by(training: TrainingSettings) -> None:
    model = new_encoder_model(training.model, NAMES, 16, torch.device("cpu"))
    assert set(model.head_arrays()) == {"head_norms", "head_bias"}
    set_head(model.network, NormalisedLinear.like(head_of(model.network, 2), 30.0))
    assert model.head_arrays() == {}


@pytest.mark.parametrize("model_type", sorted(FIRST_TOKEN_HEADS))
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_states_that_the_head_does_not_read_can_be_skipped(model_type: str, attention: str) -> None:
    """The same logits and the same gradients as the plain network's."""
    network, inputs = random_network(model_type, attention)
    found = []
    for _ in range(2):
        network.zero_grad()
        logits = network(**inputs).logits
        logits.logsumexp(dim=1).sum().backward()
        found.append([logits.detach(), *(each.grad.clone() for each in network.parameters() if each.grad is not None)])
        skip_unread_states(network)
    for plain, skipped in zip(*found, strict=True):
        torch.testing.assert_close(skipped, plain)


def test_folder_loads_by_auto_classes_with_the_same_logits(trained: EncoderModel, tmp_path: Path) -> None:
    models.save(trained, tmp_path, {"seed": 0})
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert network.config.id2label == dict(enumerate(NAMES))
    with torch.inference_mode():
        expected = network(**tokenizer(TEXTS[:5], padding=True, truncation=True, return_tensors="pt")).logits
    np.testing.assert_allclose(ballast.load(tmp_path).logits(TEXTS[:5]), expected.numpy(), atol=1e-5)
    assert ballast.load(tmp_path).max_length == 16


def test_models_of_one_encoder_share_the_file_of_the_frozen_layers(
    training: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SMALLEST_BYTES", 1)
    for seed in (0, 1):
        model = fine_tune(Technique(), data(), dataclasses.replace(training, frozen_layers=1, seed=seed))
        (tmp_path / str(seed)).mkdir()
        models.save(model, tmp_path / str(seed), {})
        loaded = ballast.load(tmp_path / str(seed))
        assert isinstance(loaded, EncoderModel)
        expected = model.network.state_dict()
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.network.state_dict().items())
    first, second = ({name: (tmp_path / seed / name).read_bytes() for name in (shards.FROZEN, shards.TRAINED)} for seed in "01")
    assert first[shards.FROZEN] == second[shards.FROZEN] and first[shards.TRAINED] != second[shards.TRAINED]
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "0")


def test_logits_do_not_depend_on_the_other_texts(trained: EncoderModel) -> None:
    texts = ["ok", "free prize " * 9, "see you", ""]
    together = trained.logits(texts)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(trained.logits([text])[0], together[row], atol=1e-5)


def random_network(model_type: str, attention: str) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """A small network with random weights, and inputs of which some are padded."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes, max_position_embeddings=40, num_labels=3, pad_token_id=0)
    inputs = {"input_ids": torch.randint(1, 50, (5, 12)), "attention_mask": (torch.arange(12) < 9).long().repeat(5, 1)}
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).eval(), inputs


@pytest.mark.parametrize("model_type", sorted(FIRST_TOKEN_HEADS))
def test_weights_that_are_cast_once_give_what_an_autocast_gives(model_type: str) -> None:
    network, inputs = random_network(model_type, "eager")
    skip_unread_states(network)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    cast = cast_linear_weights(network, bf16=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cast(**inputs).logits, network(**inputs).logits)
    assert {each.dtype for each in cast.state_dict().values() if each.is_floating_point()} == {torch.bfloat16, torch.float32}
    # Another thread may score by the same network meanwhile.
    for name, each in network.state_dict().items():
        assert each.dtype == before[name].dtype and torch.equal(each, before[name])
    assert cast_linear_weights(network, bf16=False) is network


@pytest.mark.parametrize("amx", [True, False])
def test_bf16_is_used_where_it_was_asked_for_or_is_surely_faster(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    used = {precision: use_bf16(precision, torch.device("cpu")) for precision in ("auto", "bf16", "fp32")}
    assert used == {"auto": amx, "bf16": True, "fp32": False}


def test_one_process_trains_in_one_precision_after_another(training: TrainingSettings, trained: EncoderModel) -> None:
    rounded = fine_tune(Technique(), data(), dataclasses.replace(training, precision="bf16"))
    assert not np.array_equal(rounded.logits(TEXTS), trained.logits(TEXTS))
    again = fine_tune(Technique(), data(), training)
    np.testing.assert_array_equal(again.logits(TEXTS), trained.logits(TEXTS))


def test_texts_are_scored_in_the_precision_of_their_model(trained: EncoderModel) -> None:
    exact = trained.logits(TEXTS)
    rounded = dataclasses.replace(trained, precision="bf16").logits(TEXTS)
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, atol=0.1)
    np.testing.assert_array_equal(trained.logits(TEXTS), exact)


def test_a_message_of_a_megabyte_is_truncated(trained: EncoderModel) -> None:
    long = "free prize call now " * 50_000
    np.testing.assert_allclose(trained.logits([long])[0], trained.logits(["free prize call now " * 10])[0], atol=1e-5)


@pytest.mark.parametrize("damage", ["flip", "missing", "manifest", "no manifest", "kind"])
def test_a_damaged_folder_is_refused_and_named(trained: EncoderModel, tmp_path: Path, damage: str) -> None:
    models.save(trained, tmp_path, {"seed": 0})
    weights, manifest = tmp_path / "model.safetensors", tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    if damage == "flip":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif damage == "missing":
        weights.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps(digest.with_digest(digest.without_digest(content) | {"kind": "oracle"})))
    words = {
        "flip": "sha256",
        "missing": "missing",
        "manifest": "not the manifest of a model",
        "no manifest": "no such file",
        "kind": "oracle",
    }
    with pytest.raises(UserError, match=words[damage]) as error:
        ballast.load(tmp_path)
    assert damage == "kind" or str(tmp_path) in str(error.value)


@pytest.mark.parametrize("most", [1, 3, 40])
def test_texts_that_memory_does_not_suffice_for_are_scored_in_halves(most: int) -> None:
    scored: list[int] = []

    def score(rows: np.ndarray) -> None:
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        scored.extend(rows.tolist())

    for_each_batch(score, np.full(40, 8), torch.device("cpu"), "scoring")
    assert sorted(scored) == list(range(40))
    with pytest.raises(torch.OutOfMemoryError):
        for_each_batch(lambda rows: score(np.repeat(rows, most + 1)), np.full(4, 8), torch.device("cpu"), "scoring")


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (UserError("out of memory, with one message at a time"), False),
    ],
)
def test_errors_that_say_that_memory_is_full_are_known(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 40), ("roberta", 38)])
def test_texts_get_no_more_tokens_than_the_encoder_has_positions(model_type: str, positions: int) -> None:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    config = AutoConfig.for_model(model_type, max_position_embeddings=40, pad_token_id=1, **size)
    network = AutoModelForSequenceClassification.from_config(config)
    check_positions(network, positions, "it")
    network(torch.full((1, positions), 5))
    with pytest.raises(UserError, match=f"max_length must be at most {positions}, .*, got {positions + 1}"):
        check_positions(network, positions + 1, "it")
    with pytest.raises((IndexError, RuntimeError)):
        network(torch.full((1, positions + 1), 5))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "added_tokens.json"])
def test_the_embedded_encoder_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    folder = minilm_folder()
    for path in folder.iterdir():
        (tmp_path / "model" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / path.name).symlink_to(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: Namespace(origin=str(tmp_path / "__init__.py")))
    assert minilm_folder() == tmp_path / "model"
    (tmp_path / "model" / name).unlink(missing_ok=True)
    (tmp_path / "model" / name).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=f"{name} is not the pinned file of MiniLM"):
        minilm_folder()


@pytest.mark.parametrize("name", ["no/such-model", "no_such_folder", "."])
def test_a_model_that_cannot_be_had_is_an_error_with_the_choices(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded: .*expected: minilm, a folder"):
        new_encoder_model(name, NAMES, 16, torch.device("cpu"))


def test_more_tokens_than_positions_is_an_error(tiny_encoder: Path) -> None:
    with pytest.raises(UserError, match=r"max_length must be at most .*, got 100000"):
        new_encoder_model(str(tiny_encoder), NAMES, 100_000, torch.device("cpu"))


@pytest.mark.parametrize("device", ["cuda" if not torch.cuda.is_available() else "xpu", "abacus"])
def test_a_missing_device_is_an_error(device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}' is not available"):
        choose_device(device)


lengths = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(np.array)


@given(lengths, st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_shuffled_batches_hold_every_row_once(each: np.ndarray, size: int, seed: int) -> None:
    batches = shuffled_batches(each, size, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(each)))
    assert max(map(len, batches)) <= size
    again = shuffled_batches(each, size, np.random.default_rng(seed))
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@given(lengths, st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_scoring_batches_hold_every_row_once_and_fit(each: np.ndarray, tokens: int) -> None:
    batches = sorted_batches(each, tokens)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(each)))
    assert all(len(batch) == 1 or len(batch) * each[batch].max() <= tokens for batch in batches)
