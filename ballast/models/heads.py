"""Classification heads beside the plain linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

# The attribute of a saved configuration that says that the head is a normalised one.
SCALE = "normalised_head_scale"


class NormalisedLinear(nn.Linear):
    """Logits are scale x cosine between features and class vectors; there is no bias.

    Source: Cao et al., 1906.07413, section 3.1; Wang et al., NormFace (1704.06369).
    """

    scale: float

    @classmethod
    def like(cls, linear: nn.Linear, scale: float) -> NormalisedLinear:
        """A normalised layer with the weights of another."""
        made = cls(linear.in_features, linear.out_features).to(linear.weight.device)
        made.scale = scale
        with torch.no_grad():
            made.weight.copy_(linear.weight)
            made.bias.zero_()
        made.bias.requires_grad_(False)
        return made

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, K)."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


def head_name(network: nn.Module, classes: int) -> str:
    """The name of the last linear layer that gives K values: the classification head."""
    return [name for name, each in network.named_modules() if isinstance(each, nn.Linear) and each.out_features == classes][-1]


def head_of(network: nn.Module, classes: int) -> nn.Linear:
    """The classification head."""
    head = network.get_submodule(head_name(network, classes))
    assert isinstance(head, nn.Linear)
    return head


def set_head(network: PreTrainedModel, head: nn.Linear) -> None:
    """Put a head in the place of the network's, and into its configuration what a normalised one needs to load."""
    network.set_submodule(head_name(network, head.out_features), head)
    if isinstance(head, NormalisedLinear):
        setattr(network.config, SCALE, head.scale)


def restore_head(network: PreTrainedModel, classes: int) -> None:
    """Make the head of a loaded network what its configuration says."""
    if (scale := getattr(network.config, SCALE, None)) is not None:
        set_head(network, NormalisedLinear.like(head_of(network, classes), scale))
