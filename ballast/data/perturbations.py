"""Perturbations that evade a filter, and by how much they lower the probability of a class.

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
    """Replace letters by similar digits: fr33."""
    return text.translate(LEET)


def spacing(text: str) -> str:
    """Put a space between the letters of each word, and two between words: f r e e."""
    return WORD.sub(lambda word: " ".join(word[0]), SPACE.sub("  ", text)) if WORD.search(text) else text


def homoglyphs(text: str) -> str:
    """Replace Latin letters by Cyrillic ones that look the same."""
    return text.translate(HOMOGLYPHS)


def perturbations(names: Iterable[str], innocent: str) -> dict[str, Callable[[str], str]]:
    """Functions from text to text by name. `padding` appends innocent words. Raises ArgumentError for an unknown name."""
    functions: dict[str, Callable[[str], str]] = {
        "leet": leet,
        "spacing": spacing,
        "homoglyphs": homoglyphs,
        "padding": lambda text: f"{text} {innocent}",
    }
    names = list(names)
    for name in names:
        if name not in functions:
            raise ArgumentError(f"perturbations: unknown perturbation {name!r}: {suggestion(name, functions)}")
    return {name: functions[name] for name in names}


def probability_drops(original: np.ndarray, perturbed: np.ndarray) -> dict[str, np.ndarray]:
    """How much the probability of a class drops, over the texts that are predicted as that class unperturbed.

    original, perturbed : (m, K) posteriors of the same texts. Returns (K,) arrays: the number of texts predicted as the class
    (`called`), those that stay so when perturbed (`still`), and the mean probability of the class `before` and `after`, NaN if
    no text is predicted as the class.
    """
    classes = original.shape[1]
    predicted = original.argmax(axis=1)[:, None] == np.arange(classes)
    count = predicted.sum(axis=0)
    divisor = np.where(count > 0, count, np.nan)
    return {
        "called": count,
        "still": (predicted & (perturbed.argmax(axis=1)[:, None] == np.arange(classes))).sum(axis=0),
        "before": (original * predicted).sum(axis=0) / divisor,
        "after": (perturbed * predicted).sum(axis=0) / divisor,
    }
