"""bf16: where it was asked for, and where the hardware multiplies it faster than fp32."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

# A batch of messages by a feed-forward layer of a small encoder.
ROWS, WIDE, NARROW = 256, 1536, 384
# The shortest counts: what else runs can only make a product take longer.
PRODUCTS = 10
# Below it the conversions of an autocast eat up what is gained.
WORTHWHILE = 1.3


def seconds_of_product(dtype: torch.dtype) -> float:
    """How long a linear layer takes, at the shortest."""
    states, weights = torch.ones(ROWS, NARROW, dtype=dtype), torch.ones(WIDE, NARROW, dtype=dtype)
    found = []
    with torch.inference_mode():
        for _ in range(PRODUCTS):
            started = time.perf_counter()
            torch.nn.functional.linear(states, weights)
            found.append(time.perf_counter() - started)
    return min(found)


@cache
def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than those of fp32.

    Emulated ones are many times slower, and some processors that have instructions for them multiply fp32 faster: so that
    those which have them are asked, once a process and within some milliseconds.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return False
    return seconds_of_product(torch.float32) > WORTHWHILE * seconds_of_product(torch.bfloat16)


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16: as asked for, and with `auto` where that is faster."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(device))


@contextmanager
def weights_cast_once(network: nn.Module, *, bf16: bool) -> Iterator[None]:
    """Within, the linear layers of a network that computes in bf16 hold their weights in it.

    Its results stay the same to the bit: an autocast would cast the same weights, anew for each batch.
    """
    linear = [each for each in network.modules() if type(each) is nn.Linear] if bf16 else []
    weights = [(each, each.data) for layer in linear for each in layer.parameters()]
    try:
        for each, exact in weights:
            each.data = exact.to(torch.bfloat16)
        yield
    finally:
        for each, exact in weights:
            each.data = exact
