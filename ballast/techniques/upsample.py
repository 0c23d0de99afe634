"""Plain upsampling: messages of the smaller classes are repeated.

Source: Japkowicz, The Class Imbalance Problem (2000); the bootstrap variant is imbalanced-learn's RandomOverSampler.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import quoted, require_positive
from ballast.sampling import make_sampler, upsampled_counts
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0, bootstrap: bool = False) -> Technique:
    """Repeat messages until the largest class is at most `ratio` times any other, without weights.

    All messages of a class are repeated equally often, give or take one. With `bootstrap`, repeats are drawn with replacement.
    """
    if not isinstance(bootstrap, bool):
        raise UserError(f"upsample.bootstrap must be true or false, not {quoted(bootstrap)}")
    wanted = upsampled_counts(counts, require_positive("upsample.ratio", ratio))
    return Technique(sample=make_sampler(wanted, keep_expected_loss=False, bootstrap=bootstrap))
