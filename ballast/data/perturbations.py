"""What people do to a message so that a filter does not know it again, and how far its probability falls.

Source: Boucher et al., Bad Characters (2106.09898), for homoglyphs; Lowd and Meek, Good Word Attacks on Statistical Spam
Filters (2005), for padding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from ballast.exceptions import ArgumentError, suggestion

LEET = str.maketrans("aegiostAEGIOST", "43910574391057")
# Cyrillic letters that look like the Latin ones.
HOMOGLYPHS = str.maketrans("acehijopsxyABCEHIJKMOPSTXY", "асеһіјорѕхуАВСЕНІЈКМОРЅТХУ")
WORD = re.compile(r"[^\W\d_]{2,}")
SPACE = re.compile(r"\s+")


def leet(text: str) -> str:
    """Digits in place of the letters that they look like: fr33."""
    return text.translate(LEET)


def spacing(text: str) -> str:
    """A space between the letters of each word, two between words: f r e e."""
    return WORD.sub(lambda word: " ".join(word[0]), SPACE.sub("  ", text)) if WORD.search(text) else text


def homoglyphs(text: str) -> str:
    """Cyrillic letters in place of the Latin ones that look the same."""
    return text.translate(HOMOGLYPHS)


def perturbations(names: Iterable[str], innocent: str) -> dict[str, Callable[[str], str]]:
    """Functions from text to text by name; `padding` appends innocent words. Raises UserError for an unknown name."""
    known: dict[str, Callable[[str], str]] = {
        "leet": leet,
        "spacing": spacing,
        "homoglyphs": homoglyphs,
        "padding": lambda text: f"{text} {innocent}",
    }
    names = list(names)
    for name in names:
        if name not in known:
            raise ArgumentError(f"perturbations: unknown perturbation {name!r}: {suggestion(name, known)}")
    return {name: known[name] for name in names}


def probability_drops(original: np.ndarray, perturbed: np.ndarray) -> dict[str, np.ndarray]:
    """How far the probability of a class falls, over the texts that were called that class unperturbed.

    original, perturbed : (m, K) posteriors of the same texts. Gives for each class (K,) the number of texts `called`, those
    `still` called so when perturbed, and the mean probability of the class `before` and `after`, NaN where none was called.
    """
    classes = original.shape[1]
    called = original.argmax(axis=1)[:, None] == np.arange(classes)
    number = called.sum(axis=0)
    some = np.where(number > 0, number, np.nan)
    return {
        "called": number,
        "still": (called & (perturbed.argmax(axis=1)[:, None] == np.arange(classes))).sum(axis=0),
        "before": (original * called).sum(axis=0) / some,
        "after": (perturbed * called).sum(axis=0) / some,
    }
