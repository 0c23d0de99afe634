"""Plain downsampling: messages of the larger classes are dropped.

Source: Japkowicz, The Class Imbalance Problem (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import require_positive
from ballast.sampling import downsampled_counts, make_sampler
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0, keep: float = 1.0) -> Technique:
    """Keep a share `keep` of the smallest class, and at most `ratio` times as many messages of the others, without weights.

    A smaller `keep` allows ratios that the data does not have.
    """
    smallest = int(counts.argmin())
    remaining = counts.copy()
    remaining[smallest] = max(1, round(require_positive("downsample.keep", keep, at_most=1) * counts[smallest]))
    needed = require_positive("downsample.ratio", ratio) * remaining[smallest]
    if needed > counts.max():
        # Rounded down, so that the suggested value is valid.
        possible = floor(100 * counts.max() / ratio / counts[smallest]) / 100
        raise UserError(
            f"downsample.ratio {ratio:g} needs {needed:,.0f} messages beside the {remaining[smallest]:,} of"
            f" {labels[smallest]!r}, but the largest class has {counts.max():,}; downsample.keep must be at most {possible:g}"
        )
    return Technique(sample=make_sampler(downsampled_counts(remaining, ratio), keep_expected_loss=False))
