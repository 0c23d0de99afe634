"""How many texts are longer than an encoder reads, measured with its tokenizer and without its network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ballast.data.long_texts import TRUNCATE, most_tokens
from ballast.data.text_lengths import cut_off_by_class, sufficient_limit, token_counts
from ballast.models.pretrained import encoder_source

Count = Callable[[list[str]], np.ndarray]
# Architectures that count positions from the padding token.
COUNTED_FROM_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})


def counter_of_folder(folder: Path) -> tuple[Count, dict[str, Any]]:
    """A function that counts tokens, special tokens included, and the configuration of an encoder in a folder."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> np.ndarray:
        return np.array([len(encoding) for encoding in tokenizer.encode_batch_fast(texts)], dtype=np.int64)

    return count, json.loads((folder / "config.json").read_text(encoding="utf-8"))


def counter_of_hub(source: str) -> tuple[Count, dict[str, Any]]:
    """The same for an encoder of the hub, or one with another kind of tokenizer. Raises ArgumentError."""
    # Slow imports, which the encoders above do not need.
    from transformers import AutoConfig, AutoTokenizer

    from ballast.models.encoder import count_tokens, load_pretrained

    tokenizer, config = load_pretrained(AutoTokenizer, source), load_pretrained(AutoConfig, source)
    return partial(count_tokens, tokenizer), config.to_dict()


def positions_of(config: dict[str, Any]) -> int | None:
    """The largest `max_length` of an encoder, None if it has no maximum.

    >>> positions_of({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1})
    512
    """
    positions = config.get("max_position_embeddings")
    if positions is None:
        return None
    return int(positions - (config["pad_token_id"] + 1 if config.get("model_type") in COUNTED_FROM_PADDING else 0))


def read_by_encoder(
    name: str, max_length: int, texts: Sequence[str], labels: np.ndarray, share: float, long_texts: str = TRUNCATE
) -> dict[str, Any]:
    """How many of texts (n,) with labels (n,) have more tokens than the encoder reads, and how much of them it does not see.

    share : of the texts of each class that may be longer, for `sufficient`.

    Returns `all` and `by_class` (see `cut_off`); `positions`, the largest `max_length` of the encoder (None: no maximum); and
    `sufficient`, the smallest doubling of `max_length` that `share` allows, or the largest possible one.

    Memory is bounded. Raises UserError if the encoder cannot be loaded.
    """
    source = encoder_source(name)
    in_folder = all((Path(source) / file).is_file() for file in ("tokenizer.json", "config.json"))
    count, config = counter_of_folder(Path(source)) if in_folder else counter_of_hub(source)
    # Special tokens count towards the maximum, but they are no part of a text.
    special = int(count([""])[0])
    tokens = token_counts(texts, count)
    positions = positions_of(config)
    limit = most_tokens(max_length, special, long_texts)
    return {
        "encoder": name,
        "max_length": max_length,
        "long_texts": long_texts,
        "limit": limit,
        "positions": positions,
        "sufficient": sufficient_limit(tokens + special, labels, max_length, share, positions),
        **cut_off_by_class(tokens, labels, limit - special),
    }
