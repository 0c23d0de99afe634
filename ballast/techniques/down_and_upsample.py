"""Combined down- and upsampling: the classes get a given ratio, and the size of the training data stays the same.

Source: Chawla et al., SMOTE (1106.1813), section 6: over- and undersampling together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import make_sampler
from ballast.technique import Technique


def combined_counts(counts: np.ndarray, ratio: float) -> np.ndarray:
    """(K,) counts with the same sum, proportional to n_c^g, with the largest `ratio` times the smallest.

    A `ratio` of at least that of `counts` changes nothing.
    """
    spread = np.log(counts.max() / counts.min())
    power = min(1.0, np.log(ratio) / spread) if spread else 1.0
    wanted = counts**power
    return np.maximum(1, np.round(counts.sum() * wanted / wanted.sum())).astype(np.int64)


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 2.0) -> Technique:
    """Drop messages of larger classes and repeat those of smaller ones, until the largest has `ratio` times the smallest."""
    wanted = combined_counts(counts, require_positive("down_and_upsample.ratio", ratio, at_least=1))
    return Technique(sample=make_sampler(wanted, keep_expected_loss=False))
