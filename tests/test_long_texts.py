"""Texts that are longer than an encoder reads at once: `train.long_texts`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ballast
from ballast.data.long_texts import HEAD_AND_TAIL, LONGEST_WORD, MOST_WINDOWS, TRUNCATE, WINDOWS, divided
from ballast.models.embedding import Embedder
from ballast.models.encoder import new_encoder_model, tokenize
from ballast.models.ensemble import EnsembleModel
from ballast.models.folder import save
from ballast.models.pretrained import encoder_source
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.training.fine_tune import fine_tune

LIMIT = 10
CPU = torch.device("cpu")


def words(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


@given(st.lists(st.text("ab \n", max_size=80).map(lambda text: text.strip()), max_size=5), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_windows_hold_each_token_once_and_no_more_than_the_limit(texts: list[str], limit: int) -> None:
    parts, rows = divided(texts, limit, WINDOWS, words)
    for row, text in enumerate(texts):
        own = [part for part, at in zip(parts, rows, strict=True) if at == row]
        pieces = max((len(word) for word in text.split()), default=0)
        if len(own) < MOST_WINDOWS and pieces <= LONGEST_WORD:
            assert "".join(own) == text
        assert (words(own) <= limit).all()


def test_evenly_spread_windows_of_a_very_long_text_reach_both_ends() -> None:
    text = " ".join(map(str, range(10_000)))
    parts, rows = divided([text], LIMIT, WINDOWS, words)
    assert len(parts) == MOST_WINDOWS and set(rows) == {0}
    assert parts[0].startswith("0 1 ") and parts[-1].endswith("9998 9999")


def test_head_and_tail_are_the_first_quarter_and_the_last_three() -> None:
    text = " ".join(map(str, range(100)))
    [part], _ = divided([text], LIMIT, HEAD_AND_TAIL, words)
    assert part.split() == ["0", "1", *map(str, range(92, 100))]


@pytest.mark.parametrize("rule", [TRUNCATE, HEAD_AND_TAIL, WINDOWS])
def test_short_texts_stay_as_they_are(rule: str) -> None:
    texts = ["", " a  b ", "one two three"]
    parts, rows = divided(texts, LIMIT, rule, words)
    assert parts == texts and list(rows) == [0, 1, 2]


@pytest.mark.parametrize("rule", [HEAD_AND_TAIL, WINDOWS])
def test_a_text_without_white_space_is_divided_too(rule: str) -> None:
    def characters(texts: list[str]) -> np.ndarray:
        return np.array([len(text.strip()) for text in texts])

    text = "".join(chr(0x4E00 + at) for at in range(400))
    parts, _ = divided([text], 64, rule, characters)
    assert parts[-1].endswith(text[-1]) and (characters(parts) <= 64).all()


@pytest.mark.parametrize("rule", [TRUNCATE, HEAD_AND_TAIL, WINDOWS])
def test_blanks_that_are_tokens_are_one_part(rule: str) -> None:
    blanks, texts = " " * 40, ["a b", " " * 40, "c"]
    parts, rows = divided(texts, LIMIT, rule, lambda texts: np.array([len(text) for text in texts]))
    assert (len(parts), rows.tolist()) == (3, [0, 1, 2]) and parts[1] in ("", blanks)


def test_truncation_reads_the_same_tokens_as_the_tokenizer_of_the_whole_text() -> None:
    model = new_encoder_model("minilm", ["ham", "spam"], 16, CPU)
    for text in ("win a cash prize " * 10_000, "x" * 140_000 + " call now to win a prize"):
        [part], _ = model.parts([text])
        whole, read = tokenize(model.tokenizer, [text, part], 16)
        assert list(whole) == list(read)
    assert len(model.parts(["win a cash prize " * 10_000])[0][0]) < 140_000


@pytest.mark.parametrize("rule", [HEAD_AND_TAIL, WINDOWS])
def test_the_end_of_a_long_text_counts(rule: str, tmp_path: Path) -> None:
    model = new_encoder_model("minilm", ["ham", "spam"], 16, CPU, long_texts=rule)
    long = "see you at eight " * 20
    texts = [long, f"{long}win a cash prize now", "ok"]
    logits = model.logits(texts)
    assert not np.allclose(logits[0], logits[1])
    truncated = new_encoder_model("minilm", ["ham", "spam"], 16, CPU)
    truncated.network.load_state_dict(model.network.state_dict())
    assert np.array_equal(truncated.logits(texts)[0], truncated.logits(texts)[1])
    assert np.allclose(truncated.logits(texts)[2], logits[2], atol=1e-6)
    save(model, tmp_path / "saved", {})
    assert np.allclose(ballast.load(tmp_path / "saved").logits(texts), logits, atol=1e-6)


def test_the_logits_of_windows_are_their_mean() -> None:
    model = new_encoder_model("minilm", ["ham", "spam"], 16, CPU, long_texts=WINDOWS)
    text = "see you at eight, or call me when you are there, we can have dinner at mine " * 2
    parts, _ = model.parts([text])
    assert len(parts) > 2
    assert np.allclose(model.logits([text])[0], model.logits(parts).mean(axis=0), atol=1e-6)
    assert model.token_counts([text])[1] == MOST_WINDOWS * 14 + 2
    cost = model.multiply_adds([text])
    assert cost == pytest.approx(len(parts) * model.multiply_adds(parts), rel=1e-6)
    ensemble = EnsembleModel(model.labels, [model, model])
    assert np.allclose(ensemble.logits([text]), model.logits([text]), atol=1e-5)


def test_the_embedding_of_a_long_text_is_the_mean_of_its_windows() -> None:
    embedder = Embedder.from_pretrained(encoder_source("minilm"), "cpu", 16, "fp32", WINDOWS)
    text = "see you at eight, or call me when you are there, we can have dinner at mine " * 2
    mean = embedder.embed(embedder.parts([text])[0]).mean(axis=0)
    assert np.allclose(embedder.embed([text, "ok"])[0], mean / np.linalg.norm(mean), atol=1e-6)
    cached = Embedder.from_pretrained(encoder_source("minilm"), "cpu", 16, "fp32", WINDOWS)
    cached.cache_embeddings([text, "ok"], lambda key, compute: compute())
    assert np.array_equal(cached.embed([text, "ok"]), embedder.embed([text, "ok"]))


@pytest.mark.parametrize("frozen_layers", [5, 0])
def test_training_on_windows_learns_what_only_the_end_shows(frozen_layers: int) -> None:
    filler = "see you at eight when you are there "
    texts = [filler * 4 + (f"win a cash prize {at}" if at % 2 else f"love from mum {at}") for at in range(32)]
    data = TrainingData(texts=texts, labels=np.arange(32) % 2, weights=np.ones(32), label_names=["ham", "spam"], corpus=texts)
    rate = 5e-4 if frozen_layers else 1e-4
    common = {"model": "minilm", "epochs": 4, "batch_size": 8, "learning_rate": rate, "max_length": 16, "seed": 0}
    found = {}
    for rule in (TRUNCATE, WINDOWS):
        model = fine_tune(Technique(), data, TrainingSettings(**common, frozen_layers=frozen_layers, long_texts=rule))
        logits = model.logits(texts)
        found[rule] = float((logits.argmax(axis=1) == data.labels).mean())
    assert found[TRUNCATE] == 0.5 and found[WINDOWS] > 0.9


@pytest.mark.parametrize("rule", [TRUNCATE, HEAD_AND_TAIL, WINDOWS])
def test_memory_is_bounded_for_texts_of_megabytes(rule: str) -> None:
    code = f"""
import resource, torch
from ballast.models.encoder import new_encoder_model
model = new_encoder_model("minilm", ["ham", "spam"], 128, torch.device("cpu"), long_texts={rule!r})
model.logits(["warm up " * 300])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.logits(["win a cash prize now " * 250_000])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The tokenizer alone would take 500 MB for the whole text.
    assert int(done.stdout) < 300, done.stdout
