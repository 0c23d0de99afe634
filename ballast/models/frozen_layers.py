"""Frozen lower layers: kept as pre-trained, so that a text passes them once and not once an epoch and technique."""

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
from ballast.compute.precision import shell, with_weights_cast
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models.heads import SCALE

# Architectures in which the layers follow the embeddings and each other with nothing between or behind them.
STACKED = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
# Memory that the states of texts may take, twice that while parts are joined; where there are more, each text passes the
# frozen layers every epoch.
MOST_BYTES = 2 * 2**30
# Our own modules that decide what frozen layers give.
DECISIVE = (
    "compute/batching.py",
    "compute/parallel.py",
    "compute/precision.py",
    "models/embedding.py",
    "models/encoder.py",
    "models/frozen_layers.py",
)
# Of a network's configuration what is the head's: another one leaves what the layers below it give.
OF_HEAD = frozenset({"id2label", "label2id", "num_labels", SCALE})

Arrays = dict[str, Tensor]
# (fingerprint, compute) -> the arrays that compute() gives, or has given before for the same fingerprint.
Keep = Callable[[str, Callable[[], Arrays]], Arrays]
# Rows (b,) of some texts -> the inputs of a network.
Inputs = Callable[[np.ndarray], dict[str, Tensor]]


def freeze(network: PreTrainedModel, layers: int) -> None:
    """Keep the embeddings and the lowest `layers` encoder layers as pre-trained; 0 freezes nothing.

    Source: Lee, Tang and Lin, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning (1911.03090).
    """
    if not layers:
        return
    stack = max((each for each in network.modules() if isinstance(each, nn.ModuleList)), key=len, default=nn.ModuleList())
    if layers > len(stack):
        raise UserError(f"train.frozen_layers {layers} is more than the {len(stack)} layers of train.model")
    trained = {id(each) for layer in stack[layers:] for each in layer.parameters()}
    base = network.base_model
    trained |= {id(each) for name, each in base.named_parameters() if name.startswith("pooler")}
    for each in base.parameters():
        each.requires_grad_(id(each) in trained)


@dataclass(frozen=True)
class States:
    """What frozen layers give for texts: values (sum of t, d), those of a text from offsets[number] to the next offset."""

    number: dict[str, int]
    offsets: np.ndarray
    values: Tensor

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[str], Arrays]], device: torch.device) -> States:
        """States of the texts of all parts, each with its `values` and its tokens `lengths`."""
        texts = [text for part, _ in parts for text in part]
        lengths = np.concatenate([arrays["lengths"].numpy() for _, arrays in parts])
        values = [arrays["values"] for _, arrays in parts]
        number = {text: number for number, text in enumerate(texts)}
        # One part alone may lie on the disk still.
        whole = values[0] if len(values) == 1 else torch.cat(values)
        return cls(number, np.concatenate([[0], lengths.cumsum()]), whole.to(device))

    def numbers(self, texts: Sequence[str]) -> np.ndarray | None:
        """The numbers (n,) of texts (n,), or None where the states of one are not known."""
        found = [self.number.get(text, -1) for text in texts]
        return None if -1 in found else np.array(found, dtype=np.int64)

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        """Tokens (n,) of the texts with these numbers (n,)."""
        return self.offsets[numbers + 1] - self.offsets[numbers]

    def inputs(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """inputs_embeds (b, t, d) and attention_mask (b, t) of the texts with these numbers (b,), t the longest."""
        lengths = self.lengths(numbers)[:, None]
        positions = np.arange(lengths.max())
        mask = positions < lengths
        at = torch.from_numpy(self.offsets[numbers][:, None] + np.where(mask, positions, 0))
        device = self.values.device
        return {"inputs_embeds": self.values[at.to(device)], "attention_mask": torch.from_numpy(mask).long().to(device)}


@dataclass(frozen=True)
class Above:
    """The network above the frozen layers, of the same weights as the whole one, and the states that it begins with."""

    network: PreTrainedModel
    states: States


class Given(nn.Module):
    """Stands in the place of the embeddings and gives on what it is given."""

    def forward(self, *_inputs: object, inputs_embeds: Tensor, **_named_inputs: object) -> Tensor:
        return inputs_embeds


def with_layers(network: PreTrainedModel, layers: slice) -> PreTrainedModel:
    """A network of the same weights with some of the encoder's layers; without the first it begins with their inputs."""
    whole, base, encoder = (shell(each) for each in (network, network.base_model, network.base_model.encoder))
    encoder.layer = encoder.layer[layers]
    base.encoder = encoder
    if layers.start:
        base.embeddings = Given()
    setattr(whole, network.base_model_prefix, base)
    return whole


def can_pass_once(network: PreTrainedModel, layers: int, tokens: int) -> bool:
    """Whether the states of so many tokens behind the lowest `layers` can be kept."""
    config, device = network.config, network.device
    # Of a GPU's memory batches need the rest.
    most = min(MOST_BYTES, torch.cuda.mem_get_info(device)[0] // 4) if device.type == "cuda" else MOST_BYTES
    fits = tokens * config.hidden_size * 4 <= most
    return config.model_type in STACKED and 0 < layers < config.num_hidden_layers and fits


def pass_layers(network: PreTrainedModel, lengths: np.ndarray, inputs: Inputs, *, layers: int, bf16: bool) -> Arrays:
    """States of texts (n,) with `lengths` (n,) tokens behind the lowest layers: values (sum of t, d), lengths (n,)."""
    lower = with_weights_cast(with_layers(network, slice(0, layers)).base_model, bf16=bf16)
    lower.eval()
    offsets = np.concatenate([[0], lengths.cumsum()])
    values = torch.empty((int(offsets[-1]), network.config.hidden_size))

    def score(rows: np.ndarray) -> None:
        with torch.no_grad(), torch.autocast(network.device.type, torch.bfloat16, enabled=bf16):
            states = lower(**inputs(rows)).last_hidden_state.float().cpu()
        for row, each in zip(rows, states, strict=True):
            values[offsets[row] : offsets[row + 1]] = each[: lengths[row]]

    for_each_batch(score, lengths, network.device, "passing the frozen layers")
    return {"values": values, "lengths": torch.from_numpy(lengths)}


def fingerprint(network: PreTrainedModel, weights: Iterable[Tensor], ids: Sequence[np.ndarray], *, bf16: bool) -> str:
    """The sha256 of all that decides what a network's frozen weights give for token ids, on one kind of device."""
    decisive = {
        "config": {key: value for key, value in network.config.to_dict().items() if key not in OF_HEAD},
        "device": network.device.type,
        "bf16": bf16,
        "sources": [file_sha256(Path(__file__).parents[1] / name) for name in DECISIVE],
        "versions": [torch.__version__, transformers.__version__],
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
    for each in weights:
        digest.update(each.detach().cpu().contiguous().numpy().data)
    for each_ids in ids:
        digest.update(np.append(len(each_ids), each_ids).astype(np.int64).data)
    return digest.hexdigest()


def distinct(texts: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """The texts that are not known, each once, in the order in which they come."""
    known = set(known)
    return [text for text in dict.fromkeys(texts) if text not in known]
