"""One-class classification: a support vector machine learns one class and treats the other as outliers. Two classes only.

Source: Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution (2001); scikit-learn's OneClassSVM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.exceptions import UserError, suggestion
from ballast.parameters import require_positive
from ballast.technique import Technique, TrainingData, TrainingSettings, no_prior

if TYPE_CHECKING:
    from ballast.models.base import Model


def build(counts: np.ndarray, labels: Sequence[str], *, trained_on: str | None = None, nu: float = 0.1) -> Technique:
    """Train on frozen embeddings of the class `trained_on`, by default the largest. `nu` bounds its share of outliers."""
    if len(labels) != 2:
        raise UserError(f"one_class is for two classes, not {len(labels)}")
    if trained_on is not None and trained_on not in labels:
        raise UserError(f"one_class.trained_on names the class {trained_on!r}: {suggestion(str(trained_on), labels)}")
    target = int(counts.argmax()) if trained_on is None else list(labels).index(trained_on)
    outliers = require_positive("one_class.nu", nu, at_most=1)

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from ballast.models.embedding import embedder, fit_one_class

        encoder = embedder(data, settings)
        texts = [text for text, label in zip(data.texts, data.labels, strict=True) if label == target]
        return fit_one_class(encoder, encoder.embed(texts), data.label_names, target, outliers)

    return Technique(fit=fit, declared_prior=no_prior)
