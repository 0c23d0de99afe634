"""Numbers that describe a text without a model: a window in which they changed holds texts of another kind.

Under label shift the distribution of any of them is a mixture of its distributions in the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# Shares of the characters that match.
CHARACTERS = {
    "digits": r"\p{N}",
    "capitals": r"\p{Lu}",
    "punctuation": r"[^\p{L}\p{M}\p{N}\s]",
    "other_scripts": r"[^\x00-\x7f]",
}
NAMES = ("length", "word_length", *CHARACTERS, "unseen_words")


def words_of(texts: Sequence[str]) -> pa.ListArray:
    """The words of each text (n,), in lower case: runs of letters, also of combining marks."""
    spaced = pc.replace_substring_regex(pc.utf8_lower(pa.array(texts, pa.string())), r"[^\p{L}\p{M}]+", " ")
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(spaced))


def fingerprints_of(words: pa.Array) -> np.ndarray:
    """64-bit fingerprints (m,) of words (m,)."""
    return pd.util.hash_array(words.to_numpy(zero_copy_only=False).astype(object), categorize=False)


def vocabulary(texts: Sequence[str]) -> np.ndarray:
    """Sorted fingerprints (v,) uint64 of the different words of texts (n,)."""
    return np.unique(fingerprints_of(pc.unique(words_of(texts).flatten())))


def descriptors(texts: Sequence[str], vocabulary: np.ndarray) -> pd.DataFrame:
    """A row of numbers for each text (n,).

    length (logarithm of 1 + characters), word_length (mean), shares of the characters that are digits, capitals, punctuation
    and not ASCII, and unseen_words, the share of the words that are not in a vocabulary (v,); 0 where a text has no word.
    """
    strings = pa.array(texts, pa.string())
    characters = pc.utf8_length(strings).to_numpy(zero_copy_only=False).astype(float)
    found = {
        name: pc.count_substring_regex(strings, pattern).to_numpy(zero_copy_only=False) / np.maximum(characters, 1)
        for name, pattern in CHARACTERS.items()
    }
    words = words_of(texts)
    every, text = words.flatten(), pc.list_parent_indices(words).to_numpy(zero_copy_only=False)
    # A text without a letter is split into one empty word.
    real = pc.not_equal(every, "")
    every, text = every.filter(real), text[real.to_numpy(zero_copy_only=False)]
    count = np.maximum(np.bincount(text, minlength=len(strings)), 1)
    letters = np.bincount(text, weights=pc.utf8_length(every).to_numpy(zero_copy_only=False), minlength=len(strings))
    unseen = np.bincount(text, weights=~np.isin(fingerprints_of(every), vocabulary), minlength=len(strings))
    columns = {"length": np.log1p(characters), "word_length": letters / count, **found, "unseen_words": unseen / count}
    return pd.DataFrame(columns, columns=list(NAMES))
