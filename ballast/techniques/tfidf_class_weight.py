"""TF-IDF and a logistic regression in which each message has the weight of its class: the usual first try on rare classes.

Source: King and Zeng, Logistic Regression in Rare Events Data (2001); scikit-learn's `class_weight="balanced"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import inverse_frequency
from ballast.technique import Technique, TrainingData, TrainingSettings

if TYPE_CHECKING:
    from ballast.models.base import Model


def build(counts: np.ndarray, labels: Sequence[str], *, C: float = 10.0) -> Technique:  # noqa: N803 - scikit-learn's name
    """Weight classes by inverse frequency; `C` is the inverse strength of the L2 penalty."""
    inverse_penalty = require_positive("tfidf_class_weight.C", C)
    class_weights = inverse_frequency(counts)

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from ballast.models.tfidf import fit_tfidf

        return fit_tfidf(data.texts, data.labels, data.weights * class_weights[data.labels], data.label_names, inverse_penalty)

    return Technique(fit=fit, class_weights=class_weights)
