"""Plain downsampling: messages of the larger classes are left out.

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
    """Cut every class to at most `ratio` times what is kept of the smallest, its share `keep`; no weights.

    A smaller `keep` gives room for ratios that the data does not have, at the same number of the smallest.
    """
    smallest = int(counts.argmin())
    kept = counts.copy()
    kept[smallest] = max(1, round(require_positive("downsample.keep", keep, at_most=1) * counts[smallest]))
    needed = require_positive("downsample.ratio", ratio) * kept[smallest]
    if needed > counts.max():
        # Rounded down, so that it would do.
        possible = floor(100 * counts.max() / ratio / counts[smallest]) / 100
        raise UserError(
            f"downsample.ratio {ratio:g} needs {needed:,.0f} messages beside the {kept[smallest]:,} of {labels[smallest]!r},"
            f" and the largest class has {counts.max():,}; downsample.keep may be {possible:g} at most"
        )
    return Technique(sample=make_sampler(downsampled_counts(kept, ratio), keep_expected_loss=False))
