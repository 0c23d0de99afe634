"""Upsampling and downweighting: messages of the smaller classes are repeated, and repeats share the weight of their message.

Source: the counterpart of Google's downsampling and upweighting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import require_positive
from ballast.sampling import make_sampler, multiplied_counts, upsampled_counts
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float | None = None, repeats: float | None = None) -> Technique:
    """Repeat messages until the largest class is at most `ratio` times any other (1 by default), or `repeats` times.

    A repeat has the weight n_c / m_c: with `repeats: 2`, each message of a smaller class occurs twice, with half the weight.
    """
    if ratio is not None and repeats is not None:
        raise UserError("upsample_downweight takes ratio or repeats, not both; remove one of them")
    wanted = (
        multiplied_counts(counts, require_positive("upsample_downweight.repeats", repeats, at_least=1))
        if repeats is not None
        else upsampled_counts(counts, require_positive("upsample_downweight.ratio", 1.0 if ratio is None else ratio))
    )
    return Technique(sample=make_sampler(wanted, keep_expected_loss=True))
