"""When to compute in bf16: on request, or where the hardware multiplies it faster than fp32."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are certainly faster than in fp32.

    Emulated bf16 is many times slower. Among processors with bf16 instructions, some multiply fp32 twice as fast and others
    bf16. This is not measured at run time: another process would change the answer, and with it the weights of a seed.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16, for a precision of `bf16`, `fp32` or `auto`, which means wherever bf16 is faster."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(device))


def shallow_copy(module: Any) -> Any:
    """A copy of a module that shares its submodules. Replacing one in the copy leaves the original unchanged."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def cast_linear_weights(network: Any, *, bf16: bool) -> Any:
    """A copy of a network with the weights of its linear layers in bf16; the network itself unless `bf16`.

    The results are bit-identical to those of autocast, which casts the same weights again for each batch.
    """
    if not bf16:
        return network
    copied = shallow_copy(network)
    if type(network) is nn.Linear:
        copied._parameters = {
            name: None if parameter is None else parameter.detach().to(torch.bfloat16)
            for name, parameter in copied._parameters.items()
        }
    copied._modules = {name: cast_linear_weights(module, bf16=True) for name, module in network._modules.items()}
    return copied
