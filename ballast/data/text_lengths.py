"""Lengths of texts in tokens, and how much of them a limit cuts off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# A tokenizer needs about a hundred bytes a character. So texts are counted in batches, and long ones in pieces.
LONGEST_PIECE, CHARACTERS_AT_ONCE, TEXTS_AT_ONCE = 1 << 17, 1 << 20, 10_000
BLANKS = " \n\t\r"


def pieces(text: str, longest: int = LONGEST_PIECE) -> list[str]:
    """A text in pieces of at most `longest` characters, divided before white space if there is some.

    The tokens of the pieces add up to those of the text, because no token crosses white space. Only a word longer than a piece
    may count as more tokens.

    >>> pieces("win a cash prize", longest=6)
    ['win a', ' cash', ' prize']
    """
    parts, start = [], 0
    while len(text) - start > longest:
        end = start + longest
        blank = max(text.rfind(character, start + 1, end + 1) for character in BLANKS)
        cut = blank if blank > start else end
        parts.append(text[start:cut])
        start = cut
    return [*parts, text[start:]]


def batches(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Pieces of texts (n,) in batches of limited size: the row (m,) and the text (m,) of each piece."""
    rows: list[int] = []
    batch: list[str] = []
    characters = 0
    for row, text in enumerate(texts):
        for piece in pieces(text):
            if batch and (characters + len(piece) > CHARACTERS_AT_ONCE or len(batch) == TEXTS_AT_ONCE):
                yield np.array(rows), batch
                rows, batch, characters = [], [], 0
            rows.append(row)
            batch.append(piece)
            characters += len(piece)
    if batch:
        yield np.array(rows), batch


def token_counts(texts: Sequence[str], count: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Number of tokens (n,) of texts (n,) without special tokens, in bounded memory.

    count : number of tokens (m,) of m texts, with the special tokens that the tokenizer adds to each.

    >>> token_counts(["win a prize", "ok"], lambda texts: np.array([len(text.split()) + 2 for text in texts]))
    array([3, 1])
    """
    special = int(count([""])[0])
    total = np.zeros(len(texts), dtype=np.int64)
    for rows, batch in batches(texts):
        np.add.at(total, rows, count(batch) - special)
    return total


def cut_off(tokens: np.ndarray, limit: int) -> dict[str, Any]:
    """How many texts have more than `limit` tokens, and which share of all tokens comes after the limit, from tokens (n,).

    >>> cut_off(np.array([10, 30]), limit=20)
    {'messages': 2, 'longer': 1, 'share_of_tokens_cut': 0.25}
    """
    beyond = np.maximum(tokens - limit, 0)
    return {
        "messages": len(tokens),
        "longer": int((beyond > 0).sum()),
        "share_of_tokens_cut": float(beyond.sum() / max(1, tokens.sum())),
    }


def cut_off_by_class(tokens: np.ndarray, labels: np.ndarray, limit: int) -> dict[str, Any]:
    """`cut_off` of all texts and of each class, from tokens (n,) and labels (n,).

    >>> cut_off_by_class(np.array([10, 30]), np.array(["ham", "spam"]), limit=20)["by_class"]["spam"]["longer"]
    1
    """
    by_class = {str(label): cut_off(tokens[labels == label], limit) for label in np.unique(labels)}
    return {"all": cut_off(tokens, limit), "by_class": by_class}


def sufficient_limit(tokens: np.ndarray, labels: np.ndarray, limit: int, share: float, most: int | None) -> int:
    """The limit doubled until at most `share` of the texts of every class are longer, but at most `most` (None: no maximum).

    >>> sufficient_limit(np.array([10, 300]), np.array(["ham", "spam"]), limit=100, share=0.05, most=None)
    400
    """
    longest = 0
    for label in np.unique(labels):
        of_label = np.sort(tokens[labels == label])
        longest = max(longest, int(of_label[-1 - int(share * len(of_label))]))
    while limit < longest:
        limit *= 2
    return limit if most is None else min(limit, most)


def count_longer(texts: Sequence[str], count: Callable[[list[str]], tuple[np.ndarray, int] | None]) -> int | None:
    """How many of texts (n,) have more tokens than a model reads; None if it reads texts of any length.

    count : `Model.token_counts` of the model.
    """
    of_none = count([""])
    if of_none is None:
        return None
    limit = of_none[1] - int(of_none[0][0])

    def tokens_of(batch: list[str]) -> np.ndarray:
        counted = count(batch)
        assert counted is not None
        return counted[0]

    # A token covers at least one byte, so shorter texts need no tokenizer.
    candidates = [text for text in texts if len(text.encode()) > limit]
    return int((token_counts(candidates, tokens_of) > limit).sum())
