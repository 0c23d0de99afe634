"""Bias initialisation: the untrained model predicts the class prior.

Source: Karpathy, A Recipe for Training Neural Networks (2019), "init well"; Lin et al., Focal Loss (1708.02002), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.technique import Technique

if TYPE_CHECKING:
    from torch import nn


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    """Zero the head's weights and set b_c = log pi_c, so that the first loss is the entropy of the prior."""
    log_prior = np.log(counts / counts.sum())

    def head(linear: nn.Linear) -> nn.Linear:
        import torch

        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.copy_(torch.from_numpy(log_prior))
        return linear

    return Technique(head=head)
