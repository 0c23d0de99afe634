"""SMOTE on frozen embeddings: synthetic embeddings between a message of a smaller class and its nearest neighbours.

Source: Chawla et al., SMOTE: Synthetic Minority Over-sampling Technique (1106.1813); imbalanced-learn's SMOTE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import require_positive
from ballast.sampling import upsampled_counts
from ballast.technique import Technique, TrainingData, TrainingSettings

if TYPE_CHECKING:
    from ballast.models.base import Model


def build(
    counts: np.ndarray,
    labels: Sequence[str],
    *,
    ratio: float = 1.0,
    neighbours: int = 5,
    C: float = 10.0,  # noqa: N803
) -> Technique:
    """Enlarge the smaller classes as `upsample` does, then fit a logistic regression with inverse penalty `C`."""
    wanted = upsampled_counts(counts, require_positive("smote.ratio", ratio))
    inverse_penalty = require_positive("smote.C", C)
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise UserError(f"smote.neighbours must be a whole number of at least 1, not {neighbours!r}")
    if counts.min() < 2:
        raise UserError(f"smote needs 2 training messages of each class; {labels[int(counts.argmin())]} has {counts.min()}")

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from imblearn.over_sampling import SMOTE

        from ballast.models.embedding import embedder, fit_linear_head

        encoder = embedder(data, settings)
        smote = SMOTE(
            sampling_strategy=dict(enumerate(wanted.tolist())),
            k_neighbors=min(neighbours, int(counts.min()) - 1),
            random_state=settings.seed,
        )
        embeddings, classes = smote.fit_resample(encoder.embed(data.texts), data.labels)
        return fit_linear_head(encoder, embeddings, classes, data.label_names, inverse_penalty)

    return Technique(fit=fit, declared_prior=lambda share: wanted / wanted.sum())
