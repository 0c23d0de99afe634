"""The plain baseline: every message once, cross entropy, the library's own head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.technique import Technique


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    """Change nothing."""
    return Technique()
