"""Label-distribution-aware margins with deferred re-weighting: rare classes get a larger margin.

Source: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss (1906.07413), equations 11 to 13
and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import require_positive
from ballast.sampling import inverse_frequency
from ballast.technique import Technique, no_prior

if TYPE_CHECKING:
    from torch import Tensor, nn


def margins(counts: np.ndarray, largest: float) -> np.ndarray:
    """C n_c^(-1/4) for counts (K,), with the largest margin `largest`."""
    margin = counts**-0.25
    return margin * largest / margin.max()


def build(
    counts: np.ndarray, labels: Sequence[str], *, margin: float = 0.5, scale: float = 30.0, deferred_from: float = 0.67
) -> Technique:
    """CE(s (cos - margin of the true class), y) on a normalised head; later in training with inverse class weights."""
    if isinstance(deferred_from, bool) or not isinstance(deferred_from, int | float) or not 0 <= deferred_from <= 1:
        raise UserError(f"ldam.deferred_from must be a share of the training from 0 to 1, not {deferred_from!r}")
    shift = require_positive("ldam.scale", scale) * margins(counts, require_positive("ldam.margin", margin))
    class_weights = inverse_frequency(counts)

    def head(linear: nn.Linear) -> nn.Linear:
        from ballast.models.heads import NormalisedLinear

        return NormalisedLinear.like(linear, scale)

    def loss(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
        import torch
        from torch.nn import functional

        at_label = functional.one_hot(labels, len(counts)).to(logits.dtype)
        losses = functional.cross_entropy(logits - at_label * logits.new_tensor(shift), labels, reduction="none")
        deferred = logits.new_tensor(class_weights)[labels] if progress >= deferred_from else torch.ones_like(weights)
        return weights * deferred * losses

    return Technique(head=head, loss=loss, declared_prior=no_prior)
