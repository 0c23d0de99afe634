"""Fingerprints of texts and of groups of near duplicates, which are the same in every file, window and version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.data.near_duplicates import fingerprints, near_duplicate_groups


def fingerprints_of(texts: Sequence[str] | pd.Series) -> np.ndarray:
    """Fingerprints (n,) uint64 of texts (n,)."""
    return fingerprints(strings(texts))


def groups_of(texts: Sequence[str] | pd.Series) -> np.ndarray:
    """The near-duplicate group (n,) int64 of each text (n,)."""
    return near_duplicate_groups(strings(texts))


def strings(texts: Sequence[str] | pd.Series) -> pa.ChunkedArray:
    """Texts (n,) as an Arrow array; Arrow arrays are returned unchanged."""
    return texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.large_string())])
