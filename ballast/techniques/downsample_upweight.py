"""Downsampling and upweighting: fewer messages of the larger classes, with weights that make up for the dropped ones.

Source: Google's machine-learning course, Datasets: imbalanced datasets, downsampling and upweighting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import downsampled_counts, make_sampler
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0) -> Technique:
    """Cut every class to at most `ratio` times the smallest. The remaining messages have the weight n_c / m_c."""
    wanted = downsampled_counts(counts, require_positive("downsample_upweight.ratio", ratio))
    return Technique(sample=make_sampler(wanted, keep_expected_loss=True))
