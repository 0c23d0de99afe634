"""Post hoc methods, which change only the logits of a trained model: the references that a retrained technique must beat.

Source: Menon et al., Long-Tail Learning via Logit Adjustment (2007.07314), post hoc; Kang et al., Decoupling Representation and
Classifier (1910.09217), tau-normalisation; Alexandari et al. (1901.06852), bias-corrected temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
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
class TrainedScores:
    """The logits of several trainings of a technique, with their heads.

    out_of_fold : (n, K) logits of the out-of-fold messages, with their classes (n,) and training (n,).
    test : logits (m, K) of each training.
    heads : of each training, None without a linear head.
    """

    out_of_fold: np.ndarray
    classes: np.ndarray
    training: np.ndarray
    test: Sequence[np.ndarray]
    heads: Sequence[LinearHead | None]

    def normalised(self, heads: Sequence[LinearHead], tau: float) -> np.ndarray:
        """Out-of-fold logits (n, K), tau-normalised by the head of their training."""
        logits = np.empty(self.out_of_fold.shape)
        for position, head in enumerate(heads):
            rows = self.training == position
            logits[rows] = head.normalised(self.out_of_fold[rows], tau)
        return logits


def tau_normalised(
    scores: TrainedScores, heads: Sequence[LinearHead], share: np.ndarray, production: np.ndarray
) -> list[np.ndarray]:
    """Test logits (m, K) of each training at the tau with the highest out-of-fold macro F1; ties go to the smallest tau.

    `share` (K,) are the class shares of the out-of-fold messages. The logits are then corrected to the `production` prior (K,).
    """
    weights = (production / share)[scores.classes]
    reached = [macro_f1(scores.normalised(heads, tau).argmax(axis=1), scores.classes, weights) for tau in TAUS]
    tau = TAUS[int(np.argmax(reached))]
    shift = fit_shift(scores.normalised(heads, tau), scores.classes)
    normalised = [head.normalised(logits, tau) for head, logits in zip(heads, scores.test, strict=True)]
    return [correct_prior(logits + shift, share, production) for logits in normalised]


def post_hoc_logits(
    scores: TrainedScores, effective: np.ndarray, calibration: Calibration, production: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Test logits (m, K) of each training by method, for the `production` prior (K,) and models with the `effective` prior."""
    classes = scores.out_of_fold.shape[1]
    share = np.bincount(scores.classes, minlength=classes) / len(scores.classes)
    offsets = macro_f1_offsets(correct_prior(scores.out_of_fold, effective, production), scores.classes, production / share)
    uniform = np.full(classes, 1 / classes)
    by_method = {
        "logit_adjustment": [correct_prior(logits, effective, uniform) for logits in scores.test],
        "temperature": [correct_prior(calibration.apply(logits), share, production) for logits in scores.test],
        "threshold": [correct_prior(logits, effective, production) + offsets for logits in scores.test],
    }
    heads = [head for head in scores.heads if head is not None]
    if len(heads) < len(scores.heads):
        return by_method
    return {**by_method, "tau_normalisation": tau_normalised(scores, heads, share, production)}
