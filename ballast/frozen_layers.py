"""Frozen lower layers: kept as pre-trained, and passed by each message once in a training instead of once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ballast.batching import sorted_batches
from ballast.errors import UserError

# Architectures in which the layers follow the embeddings and each other with nothing between or behind them.
STACKED = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
# Memory that the states of a training's messages may take; of more messages each passes the frozen layers every epoch.
MOST_BYTES = 2 * 2**30
TOKENS_PER_BATCH = 4096

# Rows (b,) of a training's messages -> the inputs of the network.
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


class Replayed(nn.Module):
    """Stands in the place of the embeddings and gives states (b, t, d) that were computed before."""

    states: Tensor

    def forward(self, *_inputs: object, **_named_inputs: object) -> Tensor:
        return self.states


def can_pass_once(network: PreTrainedModel, layers: int, tokens: int) -> bool:
    """Whether the states of so many tokens behind the lowest `layers` can be kept and replayed."""
    config = network.config
    fits = tokens * config.hidden_size * 4 <= MOST_BYTES
    return config.model_type in STACKED and 0 < layers < config.num_hidden_layers and fits


@contextmanager
def passed_once(
    network: PreTrainedModel,
    layers: int,
    ids: Sequence[Sequence[int]],
    inputs: Inputs,
    autocast: Callable[[], AbstractContextManager[None]],
) -> Iterator[Inputs]:
    """Within, the network begins behind its lowest `layers`; the inputs that are given set what it begins with.

    Logits and gradients are those of the whole network, but for rounding, where the layers below are frozen without dropout.
    """
    base = network.base_model
    stack, embeddings = base.encoder.layer, base.embeddings
    numbers: dict[tuple[int, ...], int] = {}
    number = [numbers.setdefault(tuple(each), len(numbers)) for each in ids]
    distinct = np.unique(number, return_index=True)[1]
    states: list[Tensor] = [torch.empty(0)] * len(distinct)
    replayed = Replayed()

    def of_rows(rows: np.ndarray) -> dict[str, Tensor]:
        replayed.states = pad_sequence([states[number[row]] for row in rows], batch_first=True)
        return inputs(rows)

    try:
        base.encoder.layer = stack[:layers]
        with torch.no_grad(), autocast():
            for at in sorted_batches(np.array([len(ids[row]) for row in distinct]), TOKENS_PER_BATCH):
                hidden = base(**inputs(distinct[at])).last_hidden_state
                for each, row_states in zip(at, hidden, strict=True):
                    states[each] = row_states[: len(ids[distinct[each]])].clone()
        base.embeddings, base.encoder.layer = replayed, stack[layers:]
        yield of_rows
    finally:
        base.embeddings, base.encoder.layer = embeddings, stack
