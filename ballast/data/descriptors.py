"""Descriptors: numbers that describe a text without a model. If they change, a window has a different kind of text.

Under label shift, the distribution of each is a mixture of its class-conditional distributions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# Patterns of characters; the descriptor is their share.
CHARACTERS = {
    "digits": r"\p{N}",
    "capitals": r"\p{Lu}",
    "punctuation": r"[^\p{L}\p{M}\p{N}\s]",
    "other_scripts": r"[^\x00-\x7f]",
}
NAMES = ("length", "word_length", *CHARACTERS, "unseen_words")


def words_of(texts: Sequence[str]) -> pa.ListArray:
    """The lower-case words of each text (n,): runs of letters and combining marks."""
    spaced = pc.replace_substring_regex(pc.utf8_lower(pa.array(texts, pa.string())), r"[^\p{L}\p{M}]+", " ")
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(spaced))


def fingerprints_of(words: pa.Array) -> np.ndarray:
    """64-bit fingerprints (m,) of words (m,)."""
    return pd.util.hash_array(words.to_numpy(zero_copy_only=False).astype(object), categorize=False)


def vocabulary(texts: Sequence[str]) -> np.ndarray:
    """Sorted fingerprints (v,) uint64 of the distinct words of texts (n,)."""
    return np.unique(fingerprints_of(pc.unique(words_of(texts).flatten())))


def descriptors(texts: Sequence[str], vocabulary: np.ndarray) -> pd.DataFrame:
    """The descriptors of texts (n,), one row per text.

    length is log(1 + characters); word_length is a mean; digits, capitals, punctuation and other_scripts (not ASCII) are shares
    of the characters; unseen_words is the share of words outside a vocabulary (v,). Without words, word_length and
    unseen_words are 0.
    """
    strings = pa.array(texts, pa.string())
    characters = pc.utf8_length(strings).to_numpy(zero_copy_only=False).astype(float)
    shares = {
        name: pc.count_substring_regex(strings, pattern).to_numpy(zero_copy_only=False) / np.maximum(characters, 1)
        for name, pattern in CHARACTERS.items()
    }
    words = words_of(texts)
    every, text = words.flatten(), pc.list_parent_indices(words).to_numpy(zero_copy_only=False)
    # A text without letters is split into one empty word.
    nonempty = pc.not_equal(every, "")
    every, text = every.filter(nonempty), text[nonempty.to_numpy(zero_copy_only=False)]
    count = np.maximum(np.bincount(text, minlength=len(strings)), 1)
    letters = np.bincount(text, weights=pc.utf8_length(every).to_numpy(zero_copy_only=False), minlength=len(strings))
    unseen = np.bincount(text, weights=~np.isin(fingerprints_of(every), vocabulary), minlength=len(strings))
    columns = {"length": np.log1p(characters), "word_length": letters / count, **shares, "unseen_words": unseen / count}
    return pd.DataFrame(columns, columns=list(NAMES))
