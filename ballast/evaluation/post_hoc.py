"""Post hoc methods, which change only the logits of a trained model: the references that a retrained technique must beat.

Source: Menon et al., Long-Tail Learning via Logit Adjustment (2007.07314), post hoc; Kang et al., Decoupling Representation and
Classifier (1910.09217), tau-normalisation; Alexandari et al. (1901.06852), bias-corrected temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.evaluation.calibration import Calibration
from ballast.evaluation.metrics import macro_f1
from ballast.evaluation.operating_point import macro_f1_offsets
from ballast.evaluation.priors import correct_prior, fit_shift

TAUS = np.linspace(0, 2, 21)


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """Row norms (K,) and bias (K,) of the classification layer."""

    norms: np.ndarray
    bias: np.ndarray

    def normalised(self, logits: np.ndarray, tau: float) -> np.ndarray:
        """Logits (n, K) with each class vector divided by its norm to the power of tau, without the bias."""
        return (logits - self.bias) / self.norms**tau


@dataclass(frozen=True, kw_only=True)
class SplitLogits:
    """One seed's validation logits (n, K) with classes (n,), and test logits (m, K)."""

    validation: np.ndarray
    classes: np.ndarray
    test: np.ndarray


def tau_normalised(scores: SplitLogits, head: LinearHead, share: np.ndarray, production: np.ndarray) -> np.ndarray:
    """Test logits (m, K) at the tau with the highest macro F1 on validation; ties go to the smallest tau.

    `share` (K,) are the class shares of validation. The logits are then corrected to the `production` prior (K,).
    """
    weights = (production / share)[scores.classes]
    scores_by_tau = [macro_f1(head.normalised(scores.validation, tau).argmax(axis=1), scores.classes, weights) for tau in TAUS]
    tau = TAUS[int(np.argmax(scores_by_tau))]
    shift = fit_shift(head.normalised(scores.validation, tau), scores.classes)
    return correct_prior(head.normalised(scores.test, tau) + shift, share, production)


def post_hoc_logits(
    scores: SplitLogits, effective: np.ndarray, calibration: Calibration, production: np.ndarray, head: LinearHead | None
) -> dict[str, np.ndarray]:
    """Test logits (m, K) by method, for the `production` prior (K,) and a model with the `effective` prior (K,)."""
    classes = scores.test.shape[1]
    share = np.bincount(scores.classes, minlength=classes) / len(scores.classes)
    offsets = macro_f1_offsets(correct_prior(scores.validation, effective, production), scores.classes, production / share)
    by_method = {
        "logit_adjustment": correct_prior(scores.test, effective, np.full(classes, 1 / classes)),
        "temperature": correct_prior(calibration.apply(scores.test), share, production),
        "threshold": correct_prior(scores.test, effective, production) + offsets,
    }
    return by_method if head is None else {**by_method, "tau_normalisation": tau_normalised(scores, head, share, production)}
