"""Class weights: the loss of a message is multiplied by the weight of its class.

Source: King and Zeng, Logistic Regression in Rare Events Data (2001), weighting; scikit-learn's "balanced" formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import per_class
from ballast.technique import Technique


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """w_c = N / (K n_c) for counts (K,); the mean weight of a training message is 1."""
    return counts.sum() / (len(counts) * counts)


def build(counts: np.ndarray, labels: Sequence[str], *, weights: str | Mapping[int, float]) -> Technique:
    """Weight classes by `inverse` frequency, or by a weight for each class."""
    if weights == "inverse":
        return Technique(class_weights=inverse_frequency(counts))
    if isinstance(weights, str):
        raise UserError(f"class_weight.weights must be 'inverse' or a weight for each class, not {weights!r}")
    return Technique(class_weights=per_class("class_weight.weights", weights, labels))
