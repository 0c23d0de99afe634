"""Frozen lower layers: each text passes them once, instead of once per epoch and technique."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import cast_linear_weights, shallow_copy
from ballast.exceptions import ArgumentError
from ballast.io.digest import file_sha256
from ballast.models.heads import SCALE

# Architectures that consist of embeddings and a plain stack of layers.
STACKED_ARCHITECTURES = frozenset({"bert", "camembert", "mpnet", "roberta", "xlm-roberta"})
# Memory for the hidden states of texts; twice as much while parts are concatenated. If they need more, each text passes the
# frozen layers in every epoch.
MAXIMUM_BYTES = 2 * 2**30
# Modules that affect the output of frozen layers.
FINGERPRINTED_MODULES = (
    "compute/batching.py",
    "compute/parallel.py",
    "compute/precision.py",
    "models/embedding.py",
    "models/encoder.py",
    "models/frozen_layers.py",
)
# Settings of the head, which do not affect the layers below it.
HEAD_SETTINGS = frozenset({"id2label", "label2id", "num_labels", SCALE})

Arrays = dict[str, Tensor]
# (fingerprint, compute) -> the result of compute(), or an earlier result for the same fingerprint.
Cache = Callable[[str, Callable[[], Arrays]], Arrays]
# Rows (b,) of texts -> inputs of a network.
Inputs = Callable[[np.ndarray], dict[str, Tensor]]


def freeze(network: PreTrainedModel, layers: int) -> None:
    """Freeze the embeddings and the lowest `layers` encoder layers; 0 freezes nothing. Raises ArgumentError.

    Source: Lee, Tang and Lin, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning (1911.03090).
    """
    if not layers:
        return
    stack = max((module for module in network.modules() if isinstance(module, nn.ModuleList)), key=len, default=nn.ModuleList())
    if layers > len(stack):
        raise ArgumentError(f"frozen_layers must be at most {len(stack)}, the number of layers of the model, got {layers}")
    trained = {id(parameter) for layer in stack[layers:] for parameter in layer.parameters()}
    base = network.base_model
    trained |= {id(parameter) for name, parameter in base.named_parameters() if name.startswith("pooler")}
    for parameter in base.parameters():
        parameter.requires_grad_(id(parameter) in trained)


@dataclass(frozen=True)
class HiddenStates:
    """Outputs of frozen layers for texts: values (sum of t, d).

    Those of a text are values[offsets[i] : offsets[i + 1]], where i = index[text].
    """

    index: dict[str, int]
    offsets: np.ndarray
    values: Tensor

    @classmethod
    def concatenated(cls, parts: Sequence[tuple[Sequence[str], Arrays]], device: torch.device) -> HiddenStates:
        """States of the texts of all parts. A part has `values` and the `lengths` of its texts in tokens."""
        texts = [text for part, _ in parts for text in part]
        lengths = np.concatenate([arrays["lengths"].numpy() for _, arrays in parts])
        values = [arrays["values"] for _, arrays in parts]
        index = {text: position for position, text in enumerate(texts)}
        # A single part may be memory-mapped.
        whole = values[0] if len(values) == 1 else torch.cat(values)
        return cls(index, np.concatenate([[0], lengths.cumsum()]), whole.to(device))

    def indices(self, texts: Sequence[str]) -> np.ndarray | None:
        """Indices (n,) of texts (n,), or None if the states of a text are missing."""
        indices = [self.index.get(text, -1) for text in texts]
        return None if -1 in indices else np.array(indices, dtype=np.int64)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Lengths (n,) in tokens of the texts at indices (n,)."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def inputs(self, indices: np.ndarray) -> dict[str, Tensor]:
        """inputs_embeds (b, t, d) and attention_mask (b, t) of the texts at indices (b,); t is the longest length."""
        lengths = self.lengths(indices)[:, None]
        positions = np.arange(lengths.max())
        mask = positions < lengths
        rows = torch.from_numpy(self.offsets[indices][:, None] + np.where(mask, positions, 0))
        device = self.values.device
        return {"inputs_embeds": self.values[rows.to(device)], "attention_mask": torch.from_numpy(mask).long().to(device)}


@dataclass(frozen=True)
class UpperNetwork:
    """The layers above the frozen ones, which share the weights of the whole network, and the hidden states they start from."""

    network: PreTrainedModel
    states: HiddenStates


class PassThroughEmbeddings(nn.Module):
    """Replaces the embeddings of a network and returns its input unchanged."""

    def forward(self, *_inputs: object, inputs_embeds: Tensor, **_named_inputs: object) -> Tensor:
        return inputs_embeds


def with_layers(network: PreTrainedModel, layers: slice) -> PreTrainedModel:
    """A network with a slice of the encoder's layers and shared weights. Without the first layer, it takes hidden states."""
    whole, base, encoder = map(shallow_copy, (network, network.base_model, network.base_model.encoder))
    encoder.layer = encoder.layer[layers]
    base.encoder = encoder
    if layers.start:
        base.embeddings = PassThroughEmbeddings()
    setattr(whole, network.base_model_prefix, base)
    return whole


def can_cache(network: PreTrainedModel, layers: int, tokens: int) -> bool:
    """Whether the hidden states of `tokens` tokens after the lowest `layers` layers can be cached in memory."""
    config, device = network.config, network.device
    # Batches need the rest of a GPU's memory.
    most = min(MAXIMUM_BYTES, torch.cuda.mem_get_info(device)[0] // 4) if device.type == "cuda" else MAXIMUM_BYTES
    fits = tokens * config.hidden_size * 4 <= most
    return config.model_type in STACKED_ARCHITECTURES and 0 < layers < config.num_hidden_layers and fits


def compute_hidden_states(network: PreTrainedModel, lengths: np.ndarray, inputs: Inputs, *, layers: int, bf16: bool) -> Arrays:
    """Hidden states after the lowest `layers` layers of texts of `lengths` (n,) tokens: values (sum of t, d), lengths (n,)."""
    lower = cast_linear_weights(with_layers(network, slice(0, layers)).base_model, bf16=bf16)
    lower.eval()
    offsets = np.concatenate([[0], lengths.cumsum()])
    values = torch.empty((int(offsets[-1]), network.config.hidden_size))

    def score(rows: np.ndarray) -> None:
        with torch.no_grad(), torch.autocast(network.device.type, torch.bfloat16, enabled=bf16):
            states = lower(**inputs(rows)).last_hidden_state.float().cpu()
        for row, state in zip(rows, states, strict=True):
            values[offsets[row] : offsets[row + 1]] = state[: lengths[row]]

    for_each_batch(score, lengths, network.device, "passing the frozen layers")
    return {"values": values, "lengths": torch.from_numpy(lengths)}


def fingerprint(network: PreTrainedModel, weights: Iterable[Tensor], ids: Sequence[np.ndarray], *, bf16: bool) -> str:
    """SHA-256 of everything that determines the output of frozen weights for token ids, on one type of device."""
    content = {
        "config": {key: value for key, value in network.config.to_dict().items() if key not in HEAD_SETTINGS},
        "device": network.device.type,
        "bf16": bf16,
        "sources": [file_sha256(Path(__file__).parents[1] / name) for name in FINGERPRINTED_MODULES],
        "versions": [torch.__version__, transformers.__version__],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    for text_ids in ids:
        digest.update(np.append(len(text_ids), text_ids).astype(np.int64).data)
    return digest.hexdigest()


def distinct(texts: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """The distinct texts in their order, without those in `exclude`."""
    excluded = set(exclude)
    return [text for text in dict.fromkeys(texts) if text not in excluded]
