"""How similar the messages of a window are to labelled ones, by the words that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

# Bounds the time in a large window.
MOST_COMPARED = 20_000
# Bounds the memory: rows of the products of sparse matrices.
BLOCK = 2000


def largest_similarity(
    texts: Sequence[str], labelled: Sequence[str], risk: np.ndarray, most: int = MOST_COMPARED
) -> np.ndarray | None:
    """The largest cosine (n,) of each text to a labelled one, in the space of TF-IDF weights of words and pairs of words.

    risk : (n,) the `most` texts of the highest risk are compared; the others get 0.

    Returns None if no text has a word of a labelled one.

    Examples
    --------
    >>> texts = ["win a big prize", "see you at eight", "call me"]
    >>> largest_similarity(texts, ["you win a prize now"], risk=np.array([0.2, 0.1, 0.1])).round(2)
    array([0.68, 0.17, 0.  ])
    """
    if not labelled:
        return None
    compared = np.argsort(-risk, kind="stable")[:most]
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+", dtype=np.float32)
    largest = np.zeros(len(texts))
    try:
        own = features.fit_transform([texts[row] for row in compared])
    except ValueError:
        # No text has a word.
        return None
    others = features.transform(labelled).T
    for start in range(0, len(compared), BLOCK):
        product = own[start : start + BLOCK] @ others
        largest[compared[start : start + BLOCK]] = product.max(axis=1).toarray().ravel()
    return largest if largest.any() else None
