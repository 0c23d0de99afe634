"""LADE: logits approximate the log of the likelihood ratio p(x|y) / p(x) under a uniform prior.

Source: Hong et al., Disentangling Label Distribution for Long-tailed Visual Recognition (2012.00321), equations 14 to 16.
Where the authors' code differs, this follows the paper: the expectation under the uniform prior weights a message by its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.parameters import require_positive
from ballast.technique import Technique

if TYPE_CHECKING:
    from torch import Tensor


def regulariser(logits: Tensor, labels: Tensor, prior: Tensor, penalty: float) -> Tensor:
    """LADER of a batch: sum over the classes c in it of pi_c (-mean of z_c over class c + log E + penalty (log E)^2).

    logits (b, K), labels (b,), prior (K,). E is the mean of exp(z_c) over the batch, where a message of class y has the weight
    1 / (K pi_y): the estimate under the uniform prior (equation 15).
    """
    import torch
    from torch.nn import functional

    classes = logits.shape[1]
    one_hot = functional.one_hot(labels, classes).to(logits.dtype)
    count = one_hot.sum(dim=0)
    own = (one_hot * logits).sum(dim=0) / count.clamp_min(1)
    log_weight = -torch.log(classes * prior)[labels]
    log_mean = torch.logsumexp(logits + log_weight[:, None], dim=0) - float(np.log(len(labels)))
    return (prior * (-own + log_mean + penalty * log_mean**2) * (count > 0)).sum()


def build(counts: np.ndarray, labels: Sequence[str], *, alpha: float = 0.1, penalty: float = 0.1) -> Technique:
    """CE(z + log pi, y) + alpha LADER, where `penalty` is lambda of the regulariser. The prior is uniform."""
    strength = require_positive("lade.alpha", alpha)
    lam = require_positive("lade.penalty", penalty)
    prior = counts / counts.sum()

    def loss(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
        from torch.nn import functional

        priors = logits.new_tensor(prior)
        cross_entropy = functional.cross_entropy(logits + priors.log(), labels, reduction="none")
        return weights * (cross_entropy + strength * regulariser(logits, labels, priors, lam))

    return Technique(loss=loss, declared_prior=lambda share: np.full(len(counts), 1 / len(counts)))
