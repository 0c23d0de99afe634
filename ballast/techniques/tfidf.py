"""TF-IDF and a logistic regression: a simple model that a transformer must beat to be worth its cost.

Source: Joachims, Text Categorization with Support Vector Machines (1998), features; scikit-learn's LogisticRegression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.parameters import require_positive
from ballast.technique import Technique, TrainingData, TrainingSettings

if TYPE_CHECKING:
    from ballast.models.base import Model


def build(counts: np.ndarray, labels: Sequence[str], *, C: float = 10.0) -> Technique:  # noqa: N803 - scikit-learn's name
    """Word unigrams and bigrams; `C` is the inverse strength of the L2 penalty."""
    inverse_penalty = require_positive("tfidf.C", C)

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from ballast.models.tfidf import fit_tfidf

        return fit_tfidf(data.texts, data.labels, data.weights, data.label_names, inverse_penalty)

    return Technique(fit=fit)
