"""Text augmentation: messages of the smaller classes are repeated, with small random changes.

Source: Wei and Zou, EDA: Easy Data Augmentation (1901.11196), random swap and deletion; character noise after Belinkov and
Bisk, Synthetic and Natural Noise (1711.02173). Synonyms are left out, since they need a thesaurus.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import make_sampler, upsampled_counts
from ballast.technique import Technique, no_prior


def swapped(words: list[str], rng: np.random.Generator) -> list[str]:
    """Swap two random words."""
    first, second = rng.integers(len(words), size=2)
    words[first], words[second] = words[second], words[first]
    return words


def deleted(words: list[str], rng: np.random.Generator) -> list[str]:
    """Delete a random word, unless it is the only one."""
    index = rng.integers(len(words))
    return words[:index] + words[index + 1 :] or words


def noised(words: list[str], rng: np.random.Generator) -> list[str]:
    """Swap two adjacent characters of a random word."""
    index = rng.integers(len(words))
    word = words[index]
    if len(word) > 1:
        left = rng.integers(len(word) - 1)
        words[index] = word[:left] + word[left + 1] + word[left] + word[left + 2 :]
    return words


EDITS = (swapped, deleted, noised)


def augmented(text: str, strength: float, rng: np.random.Generator) -> str:
    """A text with one random edit per `1 / strength` words, at least one."""
    words = text.split()
    for _ in range(max(1, round(strength * len(words)))):
        if words:
            words = EDITS[rng.integers(len(EDITS))](words, rng)
    return " ".join(words)


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0, strength: float = 0.1) -> Technique:
    """Repeat messages as `upsample` does. In each repeat, a share `strength` of the words is swapped, deleted or misspelt."""
    wanted = upsampled_counts(counts, require_positive("augment.ratio", ratio))
    share = require_positive("augment.strength", strength, at_most=1)

    def texts(texts: Sequence[str], repeated: np.ndarray, rng: np.random.Generator) -> list[str]:
        return [augmented(text, share, rng) if is_repeat else text for text, is_repeat in zip(texts, repeated, strict=True)]

    return Technique(sample=make_sampler(wanted, keep_expected_loss=False), texts=texts, declared_prior=no_prior)
