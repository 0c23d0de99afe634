"""Class weights by the effective number of messages: the tenth copy of a template adds less than the first.

Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples (1901.05555), equation 2 and section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.technique import Technique


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """w_c = (1 - beta) / (1 - beta^n_c) for counts (K,), scaled to the sum K. Beta 0 gives 1, beta near 1 inverse frequency."""
    # expm1 is accurate where beta^n_c is close to 1.
    weights = 1 / -np.expm1(counts * np.log(beta)) if beta else np.ones(len(counts))
    return weights * len(counts) / weights.sum()


def build(counts: np.ndarray, labels: Sequence[str], *, beta: float = 0.9999) -> Technique:
    """Weight classes by the inverse of their effective number; `beta` is in [0, 1)."""
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta < 1:
        raise UserError(f"effective_number.beta must be at least 0 and below 1, not {beta!r}")
    return Technique(class_weights=effective_number_weights(counts, beta))
