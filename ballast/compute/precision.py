"""bf16: where it was asked for, and where the hardware surely multiplies it faster than fp32."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are surely faster than in fp32.

    Emulated ones are many times slower; and of the processors that have instructions for bf16 some multiply fp32 twice as
    fast, others the other way round. Which they are is not measured: another process that works meanwhile would change the
    answer, and with it the weights that a seed gives.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16: as asked for, and with `auto` where that is faster."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(device))


def shell(module: Any) -> Any:
    """A module with the same parts, of which one can be replaced without replacing the other module's."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def with_weights_cast(network: Any, *, bf16: bool) -> Any:
    """A network whose linear layers hold their weights in bf16 if it computes in it, else the network itself.

    Its results are the same to the bit: an autocast would cast the same weights, anew for each batch.
    """
    if not bf16:
        return network
    made = shell(network)
    if type(network) is nn.Linear:
        of = made._parameters.items()
        made._parameters = {name: None if each is None else each.detach().to(torch.bfloat16) for name, each in of}
    made._modules = {name: with_weights_cast(each, bf16=True) for name, each in network._modules.items()}
    return made
