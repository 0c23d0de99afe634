"""The lowest layers of fine-tuned encoders, passed once if their weights are the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import cast_linear_weights, use_bf16
from ballast.data.long_texts import mean_of_parts
from ballast.models.base import Model
from ballast.models.cost import stack_multiply_adds
from ballast.models.encoder import EncoderModel, count_tokens, tokenize
from ballast.models.frozen_layers import STACKED_ARCHITECTURES, with_layers

# The settings of a configuration that do not affect the layers, but may differ between models.
OF_NO_EFFECT = frozenset({"_name_or_path", "dtype", "torch_dtype", "transformers_version"})


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules have the same weights, to the bit.

    Examples
    --------
    >>> linear = nn.Linear(2, 1)
    >>> same_weights(linear, linear), same_weights(linear, nn.Linear(2, 1))
    (True, False)
    """
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def n_shared(first: PreTrainedModel, second: PreTrainedModel) -> int:
    """Number of the lowest layers, below the last one, with the same weights; 0 if what they all read differs."""
    ours, theirs = first.base_model, second.base_model
    settings = [
        {key: value for key, value in network.config.to_dict().items() if key not in OF_NO_EFFECT}
        for network in (first, second)
    ]
    # Of MPNet, all layers read the position bias of the encoder.
    beside = [name for name, _ in ours.encoder.named_children() if name != "layer"]
    read = [same_weights(getattr(ours.encoder, name), getattr(theirs.encoder, name)) for name in beside]
    if settings[0] != settings[1] or not same_weights(ours.embeddings, theirs.embeddings) or not all(read):
        return 0
    pairs = zip(ours.encoder.layer[:-1], theirs.encoder.layer[:-1], strict=True)
    return next((at for at, pair in enumerate(pairs) if not same_weights(*pair)), len(ours.encoder.layer) - 1)


@dataclass(frozen=True)
class SharedLayers:
    """Encoders whose embeddings and lowest `layers` layers are the same modules."""

    members: Sequence[EncoderModel]
    layers: int

    def modules(self) -> Iterator[nn.Module]:
        """The shared modules."""
        base = self.members[0].network.base_model
        yield from (base.embeddings, *base.encoder.layer[: self.layers])

    @property
    def n_parameters(self) -> int:
        """Number of weights in the shared layers."""
        return sum(parameter.numel() for module in self.modules() for parameter in module.parameters())

    def multiply_adds(self, texts: Sequence[str]) -> int:
        """Mean multiply-adds of the shared layers for one of texts (n,)."""
        first = self.members[0]
        parts, _ = first.parts(texts)
        tokens = np.minimum(count_tokens(first.tokenizer, parts), first.max_length)
        stack = first.network.base_model.encoder.layer[: self.layers]
        return round(stack_multiply_adds(stack, first.network.config.hidden_size, tokens) * len(parts) / max(1, len(texts)))

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Logits (n, K) float32 of texts (n,) by each member."""
        first = self.members[0]
        device, precision = first.network.device, use_bf16(first.precision, first.network.device)
        parts, rows_of_parts = first.parts(texts)
        lengths, inputs = first.padded(tokenize(first.tokenizer, parts, first.max_length))
        lower = cast_linear_weights(with_layers(first.network, slice(0, self.layers)).base_model, bf16=precision)
        # The upper layers read hidden states; the pooled ones are not needed.
        lower.pooler = None
        uppers = [
            cast_linear_weights(with_layers(member.network, slice(self.layers, None)), bf16=precision)
            for member in self.members
        ]
        for network in (lower, *uppers):
            network.eval()
        scores = [np.empty((len(parts), len(first.labels)), dtype=np.float32) for _ in uppers]

        def score(rows: np.ndarray) -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision):
                batch = inputs(rows)
                states = lower(**batch).last_hidden_state
                for upper, of_member in zip(uppers, scores, strict=True):
                    logits = upper(inputs_embeds=states, attention_mask=batch["attention_mask"]).logits
                    of_member[rows] = logits.float().cpu().numpy()

        for_each_batch(score, lengths, device, "scoring")
        return [mean_of_parts(of_member, rows_of_parts, len(texts)) for of_member in scores]


def shared_layers(members: Sequence[Model]) -> SharedLayers | None:
    """The lowest layers that encoders have in common; their modules are then the same objects, and in memory once.

    None if there are none, or if the encoders read texts differently or are not a plain stack of layers.
    """
    encoders = [member for member in members if isinstance(member, EncoderModel)]
    if any(encoder.network.config.model_type not in STACKED_ARCHITECTURES for encoder in encoders):
        return None
    if any(reading_of(first) != reading_of(second) for first, second in pairwise(encoders)):
        return None
    first = encoders[0].network
    layers = min((n_shared(first, encoder.network) for encoder in encoders[1:]), default=0)
    if not layers:
        return None
    for encoder in encoders[1:]:
        base = encoder.network.base_model
        base.embeddings = first.base_model.embeddings
        for at in range(layers):
            base.encoder.layer[at] = first.base_model.encoder.layer[at]
    return SharedLayers(encoders, layers)


def reading_of(encoder: EncoderModel) -> tuple[str, int, str, str, str]:
    """What determines the token ids of a text and the precision of a pass."""
    return (
        encoder.tokenizer.backend_tokenizer.to_str(),
        encoder.max_length,
        encoder.long_texts,
        encoder.precision,
        str(encoder.network.device),
    )
