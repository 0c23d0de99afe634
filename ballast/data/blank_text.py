"""Texts in which a reader sees nothing: only white space, control characters and invisible characters."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Space, line and paragraph separators, control and format characters.
UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
# Letters, marks and symbols of Unicode that are drawn as nothing: fillers of Hangul, the braille pattern without dots, marks
# that only join or choose a variant.
FILLERS = frozenset(
    map(chr, [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0])
)
VARIANTS = range(0xE0100, 0xE01F0)
# RE2 finds all blank texts and some others, such as texts of private characters, faster than a loop over all texts.
CANDIDATE = rf"^[\p{{C}}\p{{Z}}{''.join(sorted(FILLERS))}{chr(VARIANTS[0])}-{chr(VARIANTS[-1])}]*$"


def is_blank(text: str) -> bool:
    r"""Whether a reader sees nothing of a text.

    >>> is_blank(" \t\u200b\ufeff"), is_blank("\u3164"), is_blank("\u200b.")
    (True, True, False)
    """
    return all(
        unicodedata.category(character) in UNSEEN or character in FILLERS or ord(character) in VARIANTS for character in text
    )


def blank_rows(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    r"""Whether each of the texts (n,) is null or blank; (n,) booleans.

    >>> blank_rows(pa.array(["a", None, "", "\u2060 "]))
    array([False,  True,  True,  True])
    """
    candidates = pc.fill_null(pc.match_substring_regex(texts, CANDIDATE), True).to_numpy(zero_copy_only=False)
    blank: np.ndarray = np.array(candidates, dtype=bool)
    rows = np.flatnonzero(blank)
    blank[rows] = [text is None or is_blank(text) for text in texts.take(pa.array(rows)).to_pylist()]
    return blank
