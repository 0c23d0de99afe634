"""ROSE on frozen embeddings: embeddings of the smaller classes are repeated with noise, a smoothed bootstrap.

Source: Menardi and Torelli, Training and Assessing Classification Rules with Imbalanced Data (2014); imbalanced-learn's
RandomOverSampler with shrinkage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
    shrinkage: float = 0.1,
    C: float = 10.0,  # noqa: N803
) -> Technique:
    """Repeat the smaller classes as `upsample` does. `shrinkage` is the noise in units of the optimal kernel width."""
    wanted = upsampled_counts(counts, require_positive("rose.ratio", ratio))
    noise = require_positive("rose.shrinkage", shrinkage)
    inverse_penalty = require_positive("rose.C", C)

    def fit(data: TrainingData, settings: TrainingSettings) -> Model:
        from imblearn.over_sampling import RandomOverSampler

        from ballast.models.embedding import embedder, fit_linear_head

        encoder = embedder(data, settings)
        rose = RandomOverSampler(
            sampling_strategy=dict(enumerate(wanted.tolist())), shrinkage=noise, random_state=settings.seed
        )
        embeddings, classes = rose.fit_resample(encoder.embed(data.texts), data.labels)
        return fit_linear_head(encoder, embeddings, classes, data.label_names, inverse_penalty)

    return Technique(fit=fit, declared_prior=lambda share: wanted / wanted.sum())
