"""A fine-tuned encoder with a classification head; its folder also loads by AutoModelForSequenceClassification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import in_bf16, with_weights_cast
from ballast.exceptions import UserError
from ballast.models.base import Model
from ballast.models.frozen_layers import (
    Above,
    Arrays,
    Inputs,
    Keep,
    States,
    can_pass_once,
    distinct,
    fingerprint,
    pass_layers,
    with_layers,
)
from ballast.models.heads import NormalisedLinear, head_of, restore_head
from ballast.models.pretrained import encoder_source

# Architectures whose classification head reads nothing but the first token's last state.
FIRST_TOKEN_HEADS = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
TOKENIZED_AT_ONCE = 10_000
COUNTED_FROM_PADDING = frozenset({"camembert", "roberta", "xlm-roberta"})


def first_token_attention(
    attention: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
) -> tuple[torch.Tensor, None]:
    """A layer's attention for the first token only, to all: states (b, t, d), mask (b, 1, t, t) -> states (b, 1, d)."""
    own = attention.self

    def of_heads(states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], own.num_attention_heads, -1).transpose(1, 2)

    context = torch.nn.functional.scaled_dot_product_attention(
        of_heads(own.query(hidden_states[:, :1])),
        of_heads(own.key(hidden_states)),
        of_heads(own.value(hidden_states)),
        attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
        dropout_p=own.dropout.p if own.training else 0.0,
        scale=own.scaling,
    )
    return attention.output(context.transpose(1, 2).flatten(2), hidden_states[:, :1]), None


def skip_unread_states(network: PreTrainedModel) -> None:
    """Let the last layer work for the first token only, where the head reads no other.

    Logits and gradients stay the same; with six layers a fifth of the matrix products of a training step goes away.
    """
    if network.config.model_type in FIRST_TOKEN_HEADS:
        attention = network.base_model.encoder.layer[-1].attention
        attention.forward = partial(first_token_attention, attention)


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; raises UserError when a device that was asked for is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"train.device {name!r} is not there: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def pretrained(loader: Any, source: str, **settings: Any) -> Any:
    """Call `loader.from_pretrained`; raises UserError when the model cannot be found or read."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return loader.from_pretrained(source, **settings)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"train.model {source!r} cannot be loaded: {reason} (expected: minilm, a folder with a saved model, or a hub id"
            " that can be reached or is in the local cache)"
        ) from error


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Token ids (t,) of each of the texts (n,), cut to at most `max_length` tokens."""
    without = {"return_attention_mask": False, "return_token_type_ids": False}
    ids: list[np.ndarray] = []
    # What a tokenizer gives beside the ids takes more memory than millions of texts may.
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        some = list(texts[start : start + TOKENIZED_AT_ONCE])
        found = tokenizer(some, truncation=True, max_length=max_length, **without)["input_ids"]
        ids += [np.array(each, dtype=np.int32) for each in found]
    return ids


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Tokens (n,) of whole texts (n,), those that mark begin and end among them."""
    return np.array([len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]], dtype=np.int64)


def pad(
    ids: Sequence[Sequence[int] | np.ndarray], rows: np.ndarray, padding: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Model inputs of some rows: input_ids (b, t) and attention_mask (b, t), t the longest row."""
    longest = max(len(ids[row]) for row in rows)
    tokens = np.full((len(rows), longest), padding, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        tokens[at, : len(ids[row])] = ids[row]
        mask[at, : len(ids[row])] = 1
    return {"input_ids": torch.from_numpy(tokens).to(device), "attention_mask": torch.from_numpy(mask).to(device)}


@dataclass
class EncoderModel(Model):
    """A transformers classification model and its tokenizer."""

    kind: ClassVar[str] = "encoder"
    labels: list[str]
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    precision: str = "auto"
    above: Above | None = field(default=None, repr=False)

    def inputs(self, texts: Sequence[str]) -> tuple[PreTrainedModel, np.ndarray, Inputs]:
        """The network for texts (n,), how many tokens (n,) they have, and the network's inputs of some rows of them.

        It is the network above the frozen layers where all these texts have passed them.
        """
        if self.above is not None and (numbers := self.above.states.numbers(texts)) is not None:
            states = self.above.states
            return self.above.network, states.lengths(numbers), lambda rows: states.inputs(numbers[rows])
        return self.network, *self.padded(tokenize(self.tokenizer, texts, self.max_length))

    def padded(self, ids: list[np.ndarray]) -> tuple[np.ndarray, Inputs]:
        """How many tokens (n,) texts have, and the whole network's inputs of some rows of them."""
        lengths = np.array([len(each) for each in ids], dtype=np.int64)
        padding, device = self.tokenizer.pad_token_id, self.network.device
        return lengths, lambda rows: pad(ids, rows, padding, device)

    def pass_once(self, layers: int, corpus: Sequence[str], texts: Sequence[str], keep: Keep) -> None:
        """Let texts pass the frozen layers, once: those of `corpus` unless their states are kept already, then the others.

        Where the states would not fit into memory, those of `texts` alone are tried; without them the whole network is used.
        """
        if not can_pass_once(self.network, layers, 0):
            return
        bf16 = in_bf16(self.precision, self.network.device)

        def states_of(ids: list[np.ndarray]) -> Arrays:
            return pass_layers(self.network, *self.padded(ids), layers=layers, bf16=bf16)

        for common in (distinct(corpus), []):
            others = distinct(texts, known=common)
            ids = tokenize(self.tokenizer, [*common, *others], self.max_length)
            if can_pass_once(self.network, layers, sum(map(len, ids))):
                break
        else:
            return
        ids_of_common, ids_of_others = ids[: len(common)], ids[len(common) :]
        parts = []
        if common:
            base = self.network.base_model
            weights = [*base.embeddings.parameters(), *base.encoder.layer[:layers].parameters()]
            key = fingerprint(self.network, weights, ids_of_common, bf16=bf16)
            parts.append((common, keep(key, lambda: states_of(ids_of_common))))
        if others:
            parts.append((others, states_of(ids_of_others)))
        states = States.joined(parts, self.network.device)
        self.above = Above(with_layers(self.network, slice(layers, None)), states)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        network, lengths, inputs = self.inputs(texts)
        device = network.device
        network.eval()
        scores = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        fast = in_bf16(self.precision, device)
        network = with_weights_cast(network, bf16=fast)

        def score(rows: np.ndarray) -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
                scores[rows] = network(**inputs(rows)).logits.float().cpu().numpy()

        for_each_batch(score, lengths, device, "scoring")
        return scores

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        return count_tokens(self.tokenizer, texts), self.max_length

    def head_arrays(self) -> dict[str, np.ndarray]:
        head = head_of(self.network, len(self.labels))
        if head.bias is None or isinstance(head, NormalisedLinear):
            return {}
        weight, bias = head.weight.detach().float().cpu().numpy(), head.bias.detach().float().cpu().numpy()
        return {"head_norms": np.linalg.norm(weight, axis=1), "head_bias": bias}

    def save_files(self, folder: Path) -> None:
        self.network.config.precision = self.precision
        self.network.save_pretrained(folder)
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> EncoderModel:
        network = pretrained(AutoModelForSequenceClassification, str(folder))
        skip_unread_states(network)
        restore_head(network, len(labels))
        tokenizer = pretrained(AutoTokenizer, str(folder))
        precision = getattr(network.config, "precision", "auto")
        return cls(labels, network.to(choose_device("auto")), tokenizer, tokenizer.model_max_length, precision)

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.network.parameters())


def check_positions(network: PreTrainedModel, max_length: int, name: str) -> None:
    """Raise UserError when texts of so many tokens have more than an encoder has positions for."""
    config = network.config
    # These count positions from behind the padding's.
    before = config.pad_token_id + 1 if config.model_type in COUNTED_FROM_PADDING else 0
    longest = getattr(config, "max_position_embeddings", max_length + before) - before
    if max_length > longest:
        raise UserError(f"train.max_length {max_length} is more than the {longest} positions of {name}")


def untrained_model(
    name: str, labels: list[str], max_length: int, device: torch.device, precision: str = "auto"
) -> EncoderModel:
    """A pre-trained encoder with a new head of K = len(labels) classes, in fp32."""
    source = encoder_source(name)
    tokenizer = pretrained(AutoTokenizer, source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = pretrained(
        AutoModelForSequenceClassification,
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        dtype=torch.float32,
        # Fused attention's backward pass is slower than the plain one on a CPU at the length of a message.
        attn_implementation="sdpa" if device.type == "cuda" else "eager",
    )
    network.config.pad_token_id = tokenizer.pad_token_id
    check_positions(network, max_length, name)
    skip_unread_states(network)
    return EncoderModel(labels, network.to(device), tokenizer, max_length, precision)
