"""Plain downsampling: messages of the larger classes are left out.

Source: Japkowicz, The Class Imbalance Problem (2000).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.sampling import downsampled_counts, resampler
from ballast.technique import Technique, require_positive


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0) -> Technique:
    """Cut every class to at most `ratio` times the smallest class; no weights."""
    wanted = downsampled_counts(counts, require_positive("downsample.ratio", ratio))
    return Technique(sample=resampler(wanted, keep_expected_loss=False))
