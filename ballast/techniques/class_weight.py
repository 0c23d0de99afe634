"""Class weights: the loss of a message is multiplied by the weight of its class.

Source: King and Zeng, Logistic Regression in Rare Events Data (2001), weighting; scikit-learn's "balanced" formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ballast.exceptions import UserError
from ballast.parameters import per_class, require_positive
from ballast.sampling import all_rows, downsampled_counts, inverse_frequency, make_sampler
from ballast.technique import Technique


def build(
    counts: np.ndarray, labels: Sequence[str], *, weights: str | Mapping[int, float], ratio: float | None = None
) -> Technique:
    """Weight classes by `inverse` frequency, or by a weight for each class.

    With `ratio`, every class is first cut to at most `ratio` times the smallest, as by `downsample`: weights on balanced data.
    """
    wanted = counts if ratio is None else downsampled_counts(counts, require_positive("class_weight.ratio", ratio))
    sample = all_rows if ratio is None else make_sampler(wanted, keep_expected_loss=False)
    if isinstance(weights, str) and weights != "inverse":
        raise UserError(f"class_weight.weights must be 'inverse' or a weight for each class, not {weights!r}")
    by_class = inverse_frequency(wanted) if weights == "inverse" else per_class("class_weight.weights", weights, labels)
    return Technique(sample=sample, class_weights=by_class)
