"""Lengths of messages in tokens: planted lengths are counted exactly, in bounded memory, and shown in words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet
from transformers import AutoTokenizer

from ballast.data.text_lengths import (
    CHARACTERS_AT_ONCE,
    LONGEST_PIECE,
    batches,
    count_longer,
    pieces,
    sufficient_limit,
    token_counts,
)
from ballast.models import encoder
from ballast.models.encoder import count_tokens, new_encoder_model, tokenize
from ballast.models.pretrained import encoder_source, minilm_folder
from stages.pages.lengths import length_lines, of_data, of_model
from stages.store import token_lengths
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.token_lengths import counter_of_folder, counter_of_hub, positions_of, read_by_encoder
from tests.deployed import deploy
from tests.project import ROOT, WORDS, Project, environment
from tests.test_validate import table

# A word of the tiny encoder is one token, and it adds two special tokens to a text.
SPECIAL, MAX_LENGTH = 2, 32
LIMIT = MAX_LENGTH - SPECIAL
EIGHT = "abcdefgh"


def words(count: int) -> str:
    """A text of so many tokens."""
    return " ".join(WORDS[at % len(WORDS)] for at in range(count))


def planted(lengths: Mapping[str, list[int]]) -> tuple[list[str], np.ndarray]:
    """Texts with so many tokens of each label, and their labels."""
    texts = [words(count) for counts in lengths.values() for count in counts]
    return texts, np.array([label for label, counts in lengths.items() for _ in counts])


TWO = {"ham": [5] * 90 + [LIMIT] * 10, "spam": [LIMIT] * 18 + [LIMIT + 1, 3 * LIMIT]}
MANY = {label: [10] * 20 + [LIMIT + 10] * at for at, label in enumerate(EIGHT)}


@pytest.mark.parametrize("lengths", [TWO, MANY], ids=["two classes", "eight classes"])
def test_planted_lengths_are_counted_exactly(tiny_encoder: Path, lengths: dict[str, list[int]]) -> None:
    texts, labels = planted(lengths)
    measured = read_by_encoder(str(tiny_encoder), MAX_LENGTH, texts, labels, 0.05)
    assert (measured["max_length"], measured["positions"]) == (MAX_LENGTH, 64)
    everything = [count for counts in lengths.values() for count in counts]
    expected = lengths | {"all": everything}
    for label, counts in expected.items():
        of_label = measured["all"] if label == "all" else measured["by_class"][label]
        cut = sum(max(0, count - LIMIT) for count in counts)
        assert of_label == {
            "messages": len(counts),
            "longer": sum(count > LIMIT for count in counts),
            "share_of_tokens_cut": pytest.approx(cut / sum(counts), abs=1e-12),
        }
    assert set(measured["by_class"]) == set(lengths)


HOSTILE = "Call 0906-170 now: £100, naïve cafés & 漢字かな交じり文 😀! \u200b\x07 ﬁne [SEP] e\u0301 "


def test_what_training_reads_is_what_is_counted(tiny_encoder: Path) -> None:
    """Of the tiny encoder and of MiniLM: the counts are those of the tokenizer that training uses."""
    texts = [words(count) for count in (1, LIMIT - 1, LIMIT, LIMIT + 1, 200)] + [HOSTILE * at for at in range(1, 9)]
    for name in (str(tiny_encoder), "minilm"):
        tokenizer = AutoTokenizer.from_pretrained(encoder_source(name))
        read = np.array([len(ids) for ids in tokenize(tokenizer, texts, MAX_LENGTH)])
        whole = count_tokens(tokenizer, texts)
        measured = read_by_encoder(name, MAX_LENGTH, texts, np.array(["a"] * len(texts)), 0.05)["all"]
        assert measured["longer"] == (read < whole).sum() > 2
        assert measured["share_of_tokens_cut"] == pytest.approx((whole - read).sum() / (whole - SPECIAL).sum(), abs=1e-12)


def test_an_encoder_without_a_tokenizer_file_is_counted_too(tiny_encoder: Path) -> None:
    """The tokenizer of an encoder of the hub, or of an old folder, is loaded by transformers."""
    texts = [words(10), "", HOSTILE]
    count, config = counter_of_hub(str(tiny_encoder))
    from_file, same_config = counter_of_folder(tiny_encoder)
    assert list(count(texts)) == list(from_file(texts)) and positions_of(config) == positions_of(same_config) == 64
    assert positions_of({"model_type": "xlnet"}) is None


def test_long_texts_are_counted_in_pieces_that_add_up() -> None:
    texts = ["", "word", words(100_000), "line\nbreak\ttab " * 30_000, "x" * (3 * LONGEST_PIECE)]
    for text in texts:
        parts = pieces(text)
        assert "".join(parts) == text and max(map(len, parts)) <= LONGEST_PIECE
        assert sum(len(part.split()) for part in parts) == max(len(text.split()), 3 if text.startswith("xx") else 0)
    made = list(batches(texts))
    assert max(sum(map(len, batch)) for _, batch in made) <= CHARACTERS_AT_ONCE
    for row, text in enumerate(texts):
        assert "".join(part for rows, batch in made for at, part in zip(rows, batch, strict=True) if at == row) == text
    counts = token_counts(texts, lambda batch: np.array([len(text.split()) + 2 for text in batch]))
    assert list(counts) == [0, 1, 100_000, 90_000, 3]


def test_minilm_counts_a_long_text_as_one_call_does() -> None:
    """Pieces of real tokens, punctuation and scripts without white space add up to the tokens of the whole text."""
    count, _ = counter_of_folder(minilm_folder())
    text = HOSTILE * 5_000
    assert len(pieces(text)) > 1
    assert list(token_counts([text], count)) == [count([text])[0] - SPECIAL]


MEMORY = """
import resource, sys
import numpy as np
from stages.store.token_lengths import counter_of_folder, counter_of_hub, positions_of, read_by_encoder
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
name = sys.argv[1]
# The first call loads what stays.
read_by_encoder(name, 32, ["baba bebe"] * 1000, np.array(["a"] * 1000), 0.05)
text = "baba bebe " * 500_000
texts = [text, "short", text]
before = peak()
counted = read_by_encoder(name, 32, texts, np.array(["a", "b", "a"]), 0.05)
print(peak() - before, counted["by_class"]["a"]["longer"], counted["all"]["share_of_tokens_cut"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak memory depends on the system")
def test_texts_of_5_megabytes_take_bounded_memory(tiny_encoder: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tiny_encoder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    megabytes, longer, cut = map(float, done.stdout.split())
    # In one call, the two texts take several times as much.
    assert megabytes < 200
    assert longer == 2 and 0.9999 < cut < 1


def test_a_sufficient_length_is_the_smallest_doubling() -> None:
    tokens, labels = np.array([10] * 96 + [300] * 4 + [10] * 9 + [500]), np.repeat(["ham", "spam"], [100, 10])
    # 4% of ham are longer, which is allowed, and 10% of spam, which is not.
    assert sufficient_limit(tokens, labels, 128, 0.05, None) == 512
    assert sufficient_limit(tokens, labels, 128, 0.05, 384) == 384
    assert sufficient_limit(tokens[:100], labels[:100], 128, 0.05, None) == 128
    assert sufficient_limit(tokens, labels, 128, 0.1, None) == 128


def test_scoring_counts_the_messages_that_are_longer_than_the_model_reads() -> None:
    seen: list[str] = []

    def counts(texts: list[str]) -> tuple[np.ndarray, int]:
        seen.extend(texts)
        return np.array([len(text.split()) + SPECIAL for text in texts]), MAX_LENGTH

    texts = [words(count) for count in (3, LIMIT, LIMIT + 1, 500)]
    assert count_longer(texts, counts) == 2
    assert texts[0] not in seen, "a text of fewer bytes than tokens needs no tokenizer"
    assert count_longer(texts, lambda texts: None) is None
    assert count_longer([], counts) == 0


def lengths(longer: int, messages: int, *, sufficient: int = 256) -> dict[str, Any]:
    """The lengths of messages of two classes; of spam so many are longer."""
    spam = {"messages": messages, "longer": longer, "share_of_tokens_cut": 0.12 if longer else 0.0}
    ham = {"messages": 900, "longer": 0, "share_of_tokens_cut": 0.0}
    both = {"messages": 900 + messages, "longer": longer, "share_of_tokens_cut": 0.00004 if longer else 0.0}
    settings = {"encoder": "minilm", "max_length": 128, "limit": 128, "positions": 512, "sufficient": sufficient}
    settings["long_texts"] = "truncate"
    return {**settings, "all": both, "by_class": {"ham": ham, "spam": spam}}


def test_lines_of_the_terminal() -> None:
    assert length_lines(lengths(0, 100)) == ["no message is longer than 128 tokens (train.max_length)"]
    few = (
        "5 of 1,000 messages (0.50%) are longer than 128 tokens (train.max_length); the encoder does not see the rest,"
        " less than 0.01% of all text"
    )
    assert length_lines(lengths(5, 100)) == [few]
    [_, warning] = length_lines(lengths(6, 100))
    assert warning.startswith(
        "warning: the encoder does not see all of 6 of 100 messages of spam (6.0%), and misses 12.0% of the text of this class;"
        " set train.max_length: 256 "
    )
    assert "the largest that the encoder can read" in length_lines(lengths(60, 100, sufficient=512))[1]
    spread = lengths(0, 100) | {"long_texts": "windows", "limit": 2018}
    assert length_lines(spread) == ["no message is longer than 2,018 tokens (train.max_length and train.long_texts)"]
    none_left = length_lines(lengths(60, 100, sufficient=128))[1]
    assert "the encoder cannot read more" in none_left and "set train.max_length" not in none_left


def test_sentences_of_the_report_and_the_card() -> None:
    assert "not counted" in of_data(None) and "not counted" in of_model(128, None)
    assert "encoders read whole messages" in of_data(lengths(0, 100))
    assert "The class spam is affected most: 6 of 100 messages (6.0%)" in of_data(lengths(6, 100))
    assert "Set train.max_length: 256" in of_data(lengths(6, 100)) and "Set" not in of_data(lengths(5, 100))
    assert of_model(None, lengths(6, 100)) == "This model reads texts of any length."
    assert of_model(128, lengths(1, 100)) == (
        "This model reads a part of a longer text: the first 128 tokens. 1 of 1,000 messages (0.10%) is longer than 128 tokens,"
        " and less than 0.01% of all text is not read."
    )


def test_windows_read_more_of_a_text(tiny_encoder: Path) -> None:
    texts, labels = planted({"spam": [LIMIT, 3 * LIMIT, 16 * LIMIT, 17 * LIMIT]})
    measured = read_by_encoder(str(tiny_encoder), MAX_LENGTH, texts, labels, 0.05, "windows")
    assert (measured["limit"], measured["all"]["longer"]) == (16 * LIMIT + SPECIAL, 1)
    assert "Encoders read a part of each: at most 16 windows of 32 tokens, spread evenly" in of_data(measured)
    assert "set train.long_texts" not in of_data(measured).lower()


def validated(workspace: Project, texts: list[str], model: str) -> tuple[dict[str, Any] | None, str]:
    """The lengths that the stage writes, and what it prints."""
    messages = table({"ham": 40, "spam": 40})
    workspace.write(str(PROJECT.messages), messages.assign(text=texts))
    workspace.edit({"train.model": model, "train.max_length": MAX_LENGTH})
    done = workspace.stage_here("validate")
    assert done.code == 0, done.stderr
    written: dict[str, Any] | None = read_json(workspace.folder / PROJECT.validation)["lengths"]
    return written, done.stderr


def test_validate_writes_the_counts_and_warns(workspace: Project, tiny_encoder: Path) -> None:
    texts = [f"{words(10)} {at}" for at in range(40)] + [f"{words(45)} {at}" for at in range(40)]
    written, stderr = validated(workspace, texts, str(tiny_encoder))
    assert written is not None and written["encoder"] == str(tiny_encoder)
    assert (written["by_class"]["ham"]["longer"], written["by_class"]["spam"]["longer"]) == (0, 40)
    assert "validate: 40 of 80 messages (50.0%) are longer than 32 tokens (train.max_length)" in stderr
    assert "validate: warning: the encoder does not see all of 40 of 40 messages of spam (100%)" in stderr
    assert "train.max_length: 64, the largest that the encoder can read" in stderr


def test_validate_needs_no_encoder(workspace: Project) -> None:
    """Techniques such as tfidf need none, so a missing one is no error here."""
    written, stderr = validated(workspace, [f"text {at}" for at in range(80)], "no/such folder")
    assert written is None
    assert "validate: the lengths of the messages are not counted, because model 'no/such folder' cannot be loaded" in stderr


def test_a_scored_window_counts_the_messages_that_the_model_does_not_read_to_the_end(
    workspace: Project, tiny_encoder: Path
) -> None:
    model = new_encoder_model(str(tiny_encoder), ["ham", "spam"], MAX_LENGTH, torch.device("cpu"), "fp32")
    deploy(workspace.folder, model)
    texts = [words(count) for count in (3, LIMIT, LIMIT + 1, 100, 200)]
    workspace.write("window.csv", pd.DataFrame({"text": texts}))
    done = workspace.stage_here("score", source="window.csv", window="w")
    assert "score: w: 5 messages scored with version 0001, 3 of them longer than the model reads" in done.stderr
    schema = parquet.read_schema(workspace.folder / PROJECT.scored / "w.parquet")
    assert json.loads(schema.metadata[b"ballast"])["cut_off"] == 3


def test_training_and_validation_count_positions_of_the_same_architectures_from_the_padding_token() -> None:
    assert token_lengths.COUNTED_FROM_PADDING == encoder.COUNTED_FROM_PADDING
    assert positions_of({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
