"""Multiply-adds of an encoder for one message: the cost of scoring, computed from shapes so that it is the same everywhere."""

from __future__ import annotations

import numpy as np
from torch import nn
from transformers import PreTrainedModel


def linear_size(module: nn.Module, skip: tuple[str, ...] = ()) -> int:
    """Weights of the linear layers of a module, without those whose name ends in one of `skip`."""
    return sum(
        layer.weight.numel()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] not in skip
    )


def encoder_multiply_adds(network: PreTrainedModel, tokens: np.ndarray, *, first_token: bool) -> int:
    """Mean multiply-adds of the matrix products per message, for messages of `tokens` (n,) tokens.

    first_token : whether the last layer computes only the first token.
    """
    encoder = getattr(network.base_model, "encoder", network.base_model)
    per_token, once = linear_size(encoder), linear_size(network) - linear_size(encoder)
    # Scores and weighted sums of attention, for all heads together.
    width, layers = int(network.config.hidden_size), int(network.config.num_hidden_layers)
    length = float(np.mean(tokens)) if len(tokens) else 0.0
    squared = float(np.mean(np.square(tokens, dtype=np.float64))) if len(tokens) else 0.0
    attention = 2 * width * squared * layers
    if first_token:
        last = linear_size(encoder.layer[-1], skip=("key", "value"))
        per_token, once = per_token - last, once + last
        attention += 2 * width * (length - squared)
    return round(per_token * length + once + attention)


def stack_multiply_adds(layers: nn.ModuleList, width: int, tokens: np.ndarray) -> int:
    """Mean multiply-adds of the matrix products of encoder layers per message.

    width : of the hidden states; tokens : (n,) number of tokens of each message.
    """
    length = float(np.mean(tokens)) if len(tokens) else 0.0
    squared = float(np.mean(np.square(tokens, dtype=np.float64))) if len(tokens) else 0.0
    return round(linear_size(layers) * length + 2 * width * squared * len(layers))
