"""The majority classifier: every message gets the class prior. It shows that accuracy can be misleading.

Source: the no-skill reference, scikit-learn's DummyClassifier(strategy="prior").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.technique import Technique, TrainingData, TrainingSettings

if TYPE_CHECKING:
    from ballast.models.base import Model


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    """Predict log pi_c for every message."""

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from ballast.models.prior import PriorModel

        return PriorModel(labels=list(labels), log_prior=np.log(counts / counts.sum()))

    return Technique(fit=fit)
