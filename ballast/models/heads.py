"""Classification heads other than the plain linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

# Attribute of a saved configuration that marks a normalised head.
SCALE = "normalised_head_scale"


class NormalisedLinear(nn.Linear):
    """Logits are scale x cosine between features and class vectors, without a bias.

    Source: Cao et al., 1906.07413, section 3.1; Wang et al., NormFace (1704.06369).
    """

    scale: float

    @classmethod
    def like(cls, linear: nn.Linear, scale: float) -> NormalisedLinear:
        """A normalised layer with the weights of a linear one."""
        layer = cls(linear.in_features, linear.out_features).to(linear.weight.device)
        layer.scale = scale
        with torch.no_grad():
            layer.weight.copy_(linear.weight)
            layer.bias.zero_()
        layer.bias.requires_grad_(False)
        return layer

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, K)."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


def head_name(network: nn.Module, classes: int) -> str:
    """Name of the classification head: the last linear layer with K outputs."""
    return [
        name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module.out_features == classes
    ][-1]


def head_of(network: nn.Module, classes: int) -> nn.Linear:
    """The classification head."""
    head = network.get_submodule(head_name(network, classes))
    assert isinstance(head, nn.Linear)
    return head


def set_head(network: PreTrainedModel, head: nn.Linear) -> None:
    """Replace the head of a network. The scale of a normalised head goes into the configuration, for loading."""
    network.set_submodule(head_name(network, head.out_features), head)
    if isinstance(head, NormalisedLinear):
        setattr(network.config, SCALE, head.scale)


def restore_head(network: PreTrainedModel, classes: int) -> None:
    """Restore the head of a loaded network from its configuration."""
    if (scale := getattr(network.config, SCALE, None)) is not None:
        set_head(network, NormalisedLinear.like(head_of(network, classes), scale))
