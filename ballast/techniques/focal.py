"""Focal loss: messages that the model classifies well count less.

Source: Lin et al., Focal Loss for Dense Object Detection (1708.02002), equation 5; K classes through the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import per_class, require_positive
from ballast.sampling import inverse_frequency
from ballast.technique import Technique, no_prior

if TYPE_CHECKING:
    from torch import Tensor


def alpha_per_class(alpha: str | Mapping[int, float] | None, counts: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Alpha (K,) of each class: 1 by default, or `inverse` frequency. For a single class of two, the other gets 1 - alpha."""
    if alpha is None:
        return np.ones(len(labels))
    if alpha == "inverse":
        return inverse_frequency(counts)
    if isinstance(alpha, Mapping) and len(labels) == 2 and len(alpha) == 1:
        [(index, value)] = alpha.items()
        share = require_positive(f"focal.alpha of {labels[index]}", value, at_most=1)
        return np.where(np.arange(2) == index, share, 1 - share)
    return per_class("focal.alpha", alpha, labels)


def build(
    counts: np.ndarray, labels: Sequence[str], *, gamma: float = 2.0, alpha: str | Mapping[int, float] | None = None
) -> Technique:
    """-alpha_y (1 - p_y)^gamma log p_y, with p from the softmax. Gamma 0 without alpha is cross entropy.

    `alpha` is a number for each class, or `inverse` for the inverse frequency.
    """
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma < np.inf:
        raise UserError(f"focal.gamma must be a number of at least 0, not {gamma!r}")
    alphas = alpha_per_class(alpha, counts, labels)

    def loss(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
        import torch
        from torch.nn import functional

        log_probability = -functional.cross_entropy(logits, labels, reduction="none")
        # expm1 is accurate where p is close to 1; the clamp keeps the gradient of the power finite there.
        modulation = (-torch.expm1(log_probability)).clamp_min(torch.finfo(logits.dtype).tiny) ** gamma
        return -weights * logits.new_tensor(alphas)[labels] * modulation * log_probability

    return Technique(loss=loss, declared_prior=no_prior)
