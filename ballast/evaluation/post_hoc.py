"""What can be done with the logits of a trained model at no cost: the arms that a retrained technique must beat.

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
    """The classification layer's row norms (K,) and bias (K,)."""

    norms: np.ndarray
    bias: np.ndarray

    def normalised(self, logits: np.ndarray, tau: float) -> np.ndarray:
        """Logits (n, K) as if each class vector were divided by its norm to the power of tau; the bias is left out."""
        return (logits - self.bias) / self.norms**tau


@dataclass(frozen=True, kw_only=True)
class SplitLogits:
    """One seed's logits (n, K) of validation, its classes (n,), and logits (m, K) of test."""

    validation: np.ndarray
    classes: np.ndarray
    test: np.ndarray


def tau_normalised(scores: SplitLogits, head: LinearHead, share: np.ndarray, production: np.ndarray) -> np.ndarray:
    """Test logits (m, K) at the tau whose macro F1 on validation is the highest; of equals the smallest change.

    `share` (K,) is that of validation; the logits are then put on the `production` prior (K,) as those of a retrained head.
    """
    weights = (production / share)[scores.classes]
    found = [macro_f1(head.normalised(scores.validation, tau).argmax(axis=1), scores.classes, weights) for tau in TAUS]
    tau = TAUS[int(np.argmax(found))]
    shift = fit_shift(head.normalised(scores.validation, tau), scores.classes)
    return correct_prior(head.normalised(scores.test, tau) + shift, share, production)


def post_hoc_logits(
    scores: SplitLogits, effective: np.ndarray, calibration: Calibration, production: np.ndarray, head: LinearHead | None
) -> dict[str, np.ndarray]:
    """Test logits (m, K) by arm; `production` (K,) is the prior to decide for, `effective` (K,) the model's own."""
    classes = scores.test.shape[1]
    share = np.bincount(scores.classes, minlength=classes) / len(scores.classes)
    offsets = macro_f1_offsets(correct_prior(scores.validation, effective, production), scores.classes, production / share)
    made = {
        "logit_adjustment": correct_prior(scores.test, effective, np.full(classes, 1 / classes)),
        "temperature": correct_prior(calibration.apply(scores.test), share, production),
        "threshold": correct_prior(scores.test, effective, production) + offsets,
    }
    return made if head is None else {**made, "tau_normalisation": tau_normalised(scores, head, share, production)}
