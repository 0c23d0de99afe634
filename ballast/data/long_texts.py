"""What an encoder reads of a text that has more tokens than it takes at once.

A text is divided at white space, because no token crosses it: the parts have the tokens of the text. Only words of more than
LONGEST_WORD characters, such as text in a language without white space, are divided too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ballast.data.text_lengths import LONGEST_PIECE, pieces, token_counts

TRUNCATE, HEAD_AND_TAIL, WINDOWS = "truncate", "head_and_tail", "windows"
# So that one text of megabytes does not outweigh all others.
MOST_WINDOWS = 16
# Sun et al., How to Fine-Tune BERT for Text Classification? (1905.05583): the first 128 and the last 382 of 510 tokens.
HEAD = 0.25
LONGEST_WORD = 32
WORD = re.compile(rf"\s*\S{{1,{LONGEST_WORD}}}")

# Number of tokens (n,) of n texts, with the special tokens of each.
Count = Callable[[list[str]], np.ndarray]


def head_of_limit(limit: int) -> int:
    """How many of `limit` tokens are those of the beginning, for `head_and_tail`.

    >>> head_of_limit(126)
    31
    """
    return int(HEAD * limit)


def beginning(text: str, limit: int, count: Count) -> str:
    """The beginning of a text, at least `limit` tokens of it; a tokenizer takes a hundred bytes for each character.

    >>> len(beginning("win a prize " * 100_000, 126, lambda texts: np.array([len(text.split()) for text in texts])))
    131069
    """
    if len(text) <= LONGEST_PIECE:
        return text
    taken: list[str] = []
    for piece in pieces(text):
        taken.append(piece)
        if token_counts(["".join(taken)], count)[0] >= limit:
            break
    return "".join(taken)


def most_tokens(max_length: int, special: int, rule: str) -> int:
    """How many tokens of a text an encoder of `max_length` reads at most, with the `special` ones of one part.

    >>> most_tokens(128, 2, "windows"), most_tokens(128, 2, "head_and_tail")
    (2018, 128)
    """
    return MOST_WINDOWS * (max_length - special) + special if rule == WINDOWS else max_length


def what_is_read(max_length: int, rule: str) -> str:
    """What an encoder reads of a longer text, in words; the special tokens are part of `max_length`.

    >>> what_is_read(128, "head_and_tail")
    'the first quarter of 128 tokens and the last three quarters'
    """
    return {
        TRUNCATE: f"the first {max_length:,} tokens",
        HEAD_AND_TAIL: f"the first quarter of {max_length:,} tokens and the last three quarters",
        WINDOWS: f"at most {MOST_WINDOWS} windows of {max_length:,} tokens, spread evenly",
    }[rule]


def fitting(words: Sequence[str], limit: int, count: Count) -> int:
    """How many of the first words have at most `limit` tokens together, at least one.

    >>> fitting(["win", " a", " cash prize"], 3, lambda texts: np.array([len(text.split()) for text in texts]))
    2
    """
    # Nearly every word has a token, so the words beyond need no tokenizer.
    tokens = token_counts(words[:limit], count)
    return max(1, int((tokens.cumsum() <= limit).sum()))


def head_and_tail(words: Sequence[str], limit: int, count: Count) -> str:
    """The first quarter of `limit` tokens and the last three.

    >>> head_and_tail(list("abcdefgh"), 4, lambda texts: np.array([len(text) for text in texts]))
    'afgh'
    """
    first = fitting(words, head_of_limit(limit), count)
    room = limit - int(token_counts(words[:first], count).sum())
    last = fitting(words[::-1], room, count) if room > 0 else 0
    return "".join([*words[:first], *words[max(first, len(words) - last) :]])


def windows(words: Sequence[str], limit: int, count: Count) -> list[str]:
    """Consecutive words of at most `limit` tokens each; of a long text, MOST_WINDOWS that are spread evenly.

    >>> windows(list("abcde"), 2, lambda texts: np.array([len(text) for text in texts]))
    ['ab', 'cd', 'e']
    """
    found: list[str] = []
    start = 0
    while start < len(words) and len(found) <= MOST_WINDOWS:
        end = start + fitting(words[start : start + limit], limit, count)
        found.append("".join(words[start:end]))
        start = end
    if len(found) <= MOST_WINDOWS:
        return found
    last = fitting(words[::-1][:limit], limit, count)
    starts = np.linspace(0, len(words) - last, MOST_WINDOWS).round().astype(int)
    return ["".join(words[at : at + fitting(words[at : at + limit], limit, count)]) for at in starts]


def parts_of(text: str, limit: int, rule: str, count: Count) -> list[str]:
    """The parts of a text with more than `limit` tokens, by the rule `head_and_tail` or `windows`."""
    words = WORD.findall(text)
    if rule == HEAD_AND_TAIL:
        return [head_and_tail(words, limit, count)]
    # Blanks alone are no words, but may be tokens.
    return windows(words, limit, count) or [""]


def divided(texts: Sequence[str], limit: int, rule: str, count: Count) -> tuple[list[str], np.ndarray]:
    """What an encoder reads of texts (n,): parts (m,) of at most `limit` tokens, and the row (m,) of the text of each.

    rule : `truncate` (one part, which the tokenizer cuts at its end), `head_and_tail` (one part) or `windows`.
    limit : tokens without the special ones.

    >>> count = lambda texts: np.array([len(text.split()) for text in texts])
    >>> divided(["a b c", "d"], 2, "windows", count)
    (['a b', ' c', 'd'], array([0, 0, 1]))
    """
    if rule == TRUNCATE:
        return [beginning(text, limit, count) for text in texts], np.arange(len(texts))
    # A token covers at least one byte, so shorter texts need no tokenizer.
    candidates = [at for at, text in enumerate(texts) if len(text.encode()) > limit]
    tokens = token_counts([texts[at][:LONGEST_PIECE] for at in candidates], count)
    long = {at for at, number in zip(candidates, tokens, strict=True) if number > limit}
    of_each = [parts_of(text, limit, rule, count) if at in long else [text] for at, text in enumerate(texts)]
    rows = np.repeat(np.arange(len(texts)), [len(parts) for parts in of_each])
    return [part for parts in of_each for part in parts], rows


def mean_of_parts(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Mean (n, d) of the values (m, d) of the parts of each of n texts; rows (m,) in ascending order.

    >>> mean_of_parts(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]), 2)
    array([[2.],
           [5.]])
    """
    if len(values) == n:
        return values
    sums = np.add.reduceat(values, np.searchsorted(rows, np.arange(n)), axis=0)
    return np.asarray(sums / np.bincount(rows, minlength=n)[:, None], dtype=values.dtype)
