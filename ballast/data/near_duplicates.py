"""Exact duplicates and near-duplicate groups of texts, without a Python loop per row.

Two texts are near duplicates if they are equal after masking case, digits, punctuation and the ways of Unicode to write the
same letters: for example a template that a spammer sends with different phone numbers, or with invisible characters in its
words. A split that separates them leaks.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE = 1 << 18


def mask(texts: pa.Array) -> pa.Array:
    """Mask case, digits and punctuation: every run of anything but letters becomes one space.

    `texts` (n,) strings -> (n,) strings. Compatibility forms are equal (NFKC), invisible format characters are removed, such
    as the zero-width space. A text without letters stays otherwise unmasked, so that "123" and "456 !!" do not both become
    empty.
    """
    visible = pc.replace_substring_regex(pc.utf8_normalize(texts, form="NFKC"), r"\p{Cf}+", "")
    # Upper case first: the lower case of a Greek capital sigma is not that of a sigma at the end of a word.
    lowered = pc.utf8_lower(pc.utf8_upper(visible))
    masked = pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, r"[^\p{L}\p{M}]+", " "))
    return pc.if_else(pc.equal(masked, ""), lowered, masked)


def fingerprints(texts: pa.ChunkedArray, *, masked: bool = False) -> np.ndarray:
    """64-bit fingerprints (n,) of texts (n,). Equal texts have equal fingerprints.

    Among 10 million texts, the probability that two different ones share a fingerprint is 3e-6.
    """
    parts = [np.empty(0, dtype=np.uint64)]
    for start in range(0, len(texts), ROWS_AT_ONCE):
        part = texts.slice(start, ROWS_AT_ONCE).combine_chunks()
        part = mask(part) if masked else part
        parts.append(pd.util.hash_array(part.to_numpy(zero_copy_only=False), categorize=False))
    return np.concatenate(parts)


def near_duplicate_groups(texts: pa.ChunkedArray) -> np.ndarray:
    """The near-duplicate group (n,) int64 of each text (n,): the fingerprint of its masked text, the same in every table.

    Examples
    --------
    >>> groups = near_duplicate_groups(pa.chunked_array([["Call 0800 123 now!", "call 0900-999 NOW", "Call me"]]))
    >>> bool(groups[0] == groups[1]), bool(groups[0] == groups[2])
    (True, False)
    """
    return fingerprints(texts, masked=True).view(np.int64)
