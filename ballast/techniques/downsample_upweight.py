"""Downsampling and upweighting: fewer messages of the larger classes, with weights that make up for the dropped ones.

Source: Google's machine-learning course, Datasets: imbalanced datasets, downsampling and upweighting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import require_positive
from ballast.sampling import downsampled_counts, make_sampler, multiplied_counts
from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float | None = None, keep: float | None = None) -> Technique:
    """Cut every class to at most `ratio` times the smallest (1 by default), or keep the share `keep` of every larger class.

    The remaining messages have the weight n_c / m_c: with `keep: 0.5`, each message of a larger class counts twice.
    """
    if ratio is not None and keep is not None:
        raise UserError("downsample_upweight takes ratio or keep, not both; remove one of them")
    wanted = (
        multiplied_counts(counts, require_positive("downsample_upweight.keep", keep, at_most=1))
        if keep is not None
        else downsampled_counts(counts, require_positive("downsample_upweight.ratio", 1.0 if ratio is None else ratio))
    )
    return Technique(sample=make_sampler(wanted, keep_expected_loss=True))
