"""Plain upsampling: messages of the smaller classes are repeated.

Source: Japkowicz, The Class Imbalance Problem (2000).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import make_sampler, upsampled_counts
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0) -> Technique:
    """Repeat messages until the largest class is at most `ratio` times any other, without weights."""
    wanted = upsampled_counts(counts, require_positive("upsample.ratio", ratio))
    return Technique(sample=make_sampler(wanted, keep_expected_loss=False))
