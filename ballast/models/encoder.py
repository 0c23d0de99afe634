"""A fine-tuned encoder with a classification head. AutoModelForSequenceClassification can load its folder, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import cast_linear_weights, use_bf16
from ballast.data.long_texts import TRUNCATE, divided, mean_of_parts, most_tokens
from ballast.exceptions import ArgumentError
from ballast.models.base import Model
from ballast.models.cost import encoder_multiply_adds
from ballast.models.frozen_layers import (
    Arrays,
    Cache,
    HiddenStates,
    Inputs,
    UpperNetwork,
    can_cache,
    compute_hidden_states,
    distinct,
    fingerprint,
    with_layers,
)
from ballast.models.heads import NormalisedLinear, head_of, restore_head
from ballast.models.pretrained import encoder_source
from ballast.models.shards import save_network

# Architectures with a classification head that reads only the last state of the first token.
FIRST_TOKEN_HEADS = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
TOKENIZED_AT_ONCE = 10_000
# Architectures that count positions from the padding token.
COUNTED_FROM_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})


def first_token_attention(
    attention: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention of the first token to all tokens: states (b, t, d), mask (b, 1, t, t) -> states (b, 1, d)."""
    own = attention.self

    def split_heads(states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], own.num_attention_heads, -1).transpose(1, 2)

    context = torch.nn.functional.scaled_dot_product_attention(
        split_heads(own.query(hidden_states[:, :1])),
        split_heads(own.key(hidden_states)),
        split_heads(own.value(hidden_states)),
        attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
        dropout_p=own.dropout.p if own.training else 0.0,
        scale=own.scaling,
    )
    return attention.output(context.transpose(1, 2).flatten(2), hidden_states[:, :1]), None


def skip_unread_states(network: PreTrainedModel) -> None:
    """Let the last layer compute only the first token, if the head reads no other.

    Logits and gradients stay the same. With six layers this saves a fifth of the matrix products of a training step.
    """
    if network.config.model_type in FIRST_TOKEN_HEADS:
        attention = network.base_model.encoder.layer[-1].attention
        attention.forward = partial(first_token_attention, attention)


def choose_device(name: str) -> torch.device:
    """The device `name`; `auto` means a GPU if there is one. Raises ArgumentError for an unavailable device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def load_pretrained(loader: Any, source: str, **settings: Any) -> Any:
    """Call `loader.from_pretrained`. Raises ArgumentError if the model cannot be found or read."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return loader.from_pretrained(source, **settings)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            f"model {source!r} cannot be loaded: {reason} (expected: minilm, a folder with a saved model, or the id of a hub"
            " model that is reachable or in the local cache)"
        ) from error


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Token ids (t,) of each text (n,), truncated to `max_length` tokens."""
    ids_only = {"return_attention_mask": False, "return_token_type_ids": False}
    ids: list[np.ndarray] = []
    # In blocks, since the other outputs of a tokenizer take too much memory for millions of texts.
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        block = list(texts[start : start + TOKENIZED_AT_ONCE])
        encoded = tokenizer(block, truncation=True, max_length=max_length, **ids_only)["input_ids"]
        ids += [np.array(text_ids, dtype=np.int32) for text_ids in encoded]
    return ids


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Number of tokens (n,) of untruncated texts (n,), with the special tokens."""
    if not len(texts):
        return np.empty(0, dtype=np.int64)
    return np.array([len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]], dtype=np.int64)


def n_special(tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of special tokens of a text."""
    return int(count_tokens(tokenizer, [""])[0])


def read_parts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, long_texts: str
) -> tuple[list[str], np.ndarray]:
    """What an encoder reads of texts (n,): parts (m,), each of at most `max_length` tokens, and the row (m,) of its text."""
    return divided(texts, max_length - n_special(tokenizer), long_texts, partial(count_tokens, tokenizer))


def pad(
    ids: Sequence[Sequence[int] | np.ndarray], rows: np.ndarray, padding: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Model inputs of rows (b,): input_ids (b, t) and attention_mask (b, t); t is the longest length."""
    longest = max(len(ids[row]) for row in rows)
    tokens = np.full((len(rows), longest), padding, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for position, row in enumerate(rows):
        tokens[position, : len(ids[row])] = ids[row]
        mask[position, : len(ids[row])] = 1
    return {"input_ids": torch.from_numpy(tokens).to(device), "attention_mask": torch.from_numpy(mask).to(device)}


@dataclass
class EncoderModel(Model):
    """A transformers classification model and its tokenizer.

    upper : layers above the frozen ones with cached hidden states, during a training.
    """

    kind: ClassVar[str] = "encoder"
    labels: list[str]
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    precision: str = "auto"
    long_texts: str = TRUNCATE
    upper: UpperNetwork | None = field(default=None, repr=False)

    def parts(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """What the encoder reads of texts (n,): parts (m,), and the row (m,) of the text of each."""
        return read_parts(self.tokenizer, texts, self.max_length, self.long_texts)

    def inputs(self, parts: Sequence[str]) -> tuple[PreTrainedModel, np.ndarray, Inputs]:
        """The network for parts (m,) of texts, their lengths (m,) in tokens, and a function from rows to the network's inputs.

        It is the upper network if the hidden states of all parts are cached.
        """
        if self.upper is not None and (indices := self.upper.states.indices(parts)) is not None:
            states = self.upper.states
            return self.upper.network, states.lengths(indices), lambda rows: states.inputs(indices[rows])
        return self.network, *self.padded(tokenize(self.tokenizer, parts, self.max_length))

    def padded(self, ids: list[np.ndarray]) -> tuple[np.ndarray, Inputs]:
        """Lengths (n,) in tokens, and a function from rows to the inputs of the whole network."""
        lengths = np.array([len(text_ids) for text_ids in ids], dtype=np.int64)
        padding, device = self.tokenizer.pad_token_id, self.network.device
        return lengths, lambda rows: pad(ids, rows, padding, device)

    def cache_hidden_states(self, layers: int, corpus: Sequence[str], texts: Sequence[str], cache: Cache) -> None:
        """Pass parts of texts through the frozen layers once. `cache` may return earlier states of `corpus`.

        If the states of all parts do not fit into memory, only those of `texts` are cached; if these do not fit, none.
        """
        if not can_cache(self.network, layers, 0):
            return
        bf16 = use_bf16(self.precision, self.network.device)

        def states_of(ids: list[np.ndarray]) -> Arrays:
            return compute_hidden_states(self.network, *self.padded(ids), layers=layers, bf16=bf16)

        for common in (distinct(corpus), []):
            others = distinct(texts, exclude=common)
            ids = tokenize(self.tokenizer, [*common, *others], self.max_length)
            if can_cache(self.network, layers, sum(map(len, ids))):
                break
        else:
            return
        ids_of_common, ids_of_others = ids[: len(common)], ids[len(common) :]
        parts = []
        if common:
            base = self.network.base_model
            weights = [*base.embeddings.parameters(), *base.encoder.layer[:layers].parameters()]
            key = fingerprint(self.network, weights, ids_of_common, bf16=bf16)
            parts.append((common, cache(key, lambda: states_of(ids_of_common))))
        if others:
            parts.append((others, states_of(ids_of_others)))
        states = HiddenStates.concatenated(parts, self.network.device)
        self.upper = UpperNetwork(with_layers(self.network, slice(layers, None)), states)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        parts, rows_of_parts = self.parts(texts)
        network, lengths, inputs = self.inputs(parts)
        device = network.device
        network.eval()
        scores = np.empty((len(parts), len(self.labels)), dtype=np.float32)
        fast = use_bf16(self.precision, device)
        network = cast_linear_weights(network, bf16=fast)

        def score(rows: np.ndarray) -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
                scores[rows] = network(**inputs(rows)).logits.float().cpu().numpy()

        for_each_batch(score, lengths, device, "scoring")
        return mean_of_parts(scores, rows_of_parts, len(texts))

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        return count_tokens(self.tokenizer, texts), most_tokens(self.max_length, n_special(self.tokenizer), self.long_texts)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        parts, _ = self.parts(texts)
        tokens = np.minimum(count_tokens(self.tokenizer, parts), self.max_length)
        of_part = encoder_multiply_adds(self.network, tokens, first_token=self.network.config.model_type in FIRST_TOKEN_HEADS)
        return round(of_part * len(parts) / max(1, len(texts)))

    def head_arrays(self) -> dict[str, np.ndarray]:
        head = head_of(self.network, len(self.labels))
        if head.bias is None or isinstance(head, NormalisedLinear):
            return {}
        weight, bias = head.weight.detach().float().cpu().numpy(), head.bias.detach().float().cpu().numpy()
        return {"head_norms": np.linalg.norm(weight, axis=1), "head_bias": bias}

    def save_files(self, folder: Path) -> None:
        self.network.config.precision = self.precision
        self.network.config.long_texts = self.long_texts
        save_network(self.network, folder)
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> EncoderModel:
        network = load_pretrained(AutoModelForSequenceClassification, str(folder))
        skip_unread_states(network)
        restore_head(network, len(labels))
        tokenizer = load_pretrained(AutoTokenizer, str(folder))
        config, device = network.config, choose_device("auto")
        precision, long_texts = getattr(config, "precision", "auto"), getattr(config, "long_texts", TRUNCATE)
        return cls(labels, network.to(device), tokenizer, tokenizer.model_max_length, precision, long_texts)

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def check_positions(network: PreTrainedModel, max_length: int, name: str) -> None:
    """Raise ArgumentError if `max_length` exceeds the positions of the encoder `name`."""
    config = network.config
    offset = config.pad_token_id + 1 if config.model_type in COUNTED_FROM_PADDING else 0
    longest = getattr(config, "max_position_embeddings", max_length + offset) - offset
    if max_length > longest:
        raise ArgumentError(f"max_length must be at most {longest}, the number of positions of {name}, got {max_length}")


def n_layers(name: str) -> int:
    """Number of layers of the encoder `name` that have their own weights. Raises ArgumentError if it cannot be loaded."""
    config = load_pretrained(AutoConfig, encoder_source(name))
    # The layers of a group of ALBERT share their weights.
    return int(getattr(config, "num_hidden_groups", config.num_hidden_layers))


def new_encoder_model(
    name: str,
    labels: list[str],
    max_length: int,
    device: torch.device,
    precision: str = "auto",
    long_texts: str = TRUNCATE,
) -> EncoderModel:
    """A pre-trained encoder in fp32 with a new head of K = len(labels) classes. Raises ArgumentError."""
    source = encoder_source(name)
    tokenizer = load_pretrained(AutoTokenizer, source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = load_pretrained(
        AutoModelForSequenceClassification,
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        dtype=torch.float32,
        # On a CPU and short texts, the backward pass of fused attention is slower.
        attn_implementation="sdpa" if device.type == "cuda" else "eager",
    )
    network.config.pad_token_id = tokenizer.pad_token_id
    check_positions(network, max_length, name)
    skip_unread_states(network)
    return EncoderModel(labels, network.to(device), tokenizer, max_length, precision, long_texts)
