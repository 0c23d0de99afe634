"""Logit adjustment: the loss adds the log prior to the logits, so that the model does not learn the prior.

Source: Menon et al., Long-Tail Learning via Logit Adjustment (2007.07314), equation 10. With tau 1 it is balanced softmax, Ren
et al. (2007.10740).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from ballast.parameters import require_positive
from ballast.technique import Technique

if TYPE_CHECKING:
    from torch import Tensor


def build(counts: np.ndarray, labels: Sequence[str], *, tau: float = 1.0) -> Technique:
    """CE(z + tau log pi, y). Posteriors are right for a prior proportional to pi^(1 - tau), which is uniform at tau 1."""
    strength = require_positive("logit_adjust.tau", tau)
    log_prior = np.log(counts / counts.sum())

    def loss(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
        from torch.nn import functional

        adjusted = logits + logits.new_tensor(strength * log_prior)
        return weights * functional.cross_entropy(adjusted, labels, reduction="none")

    def declared_prior(share: np.ndarray) -> np.ndarray:
        return np.asarray(softmax(np.log(share) - strength * log_prior))

    return Technique(loss=loss, declared_prior=declared_prior)
