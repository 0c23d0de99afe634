"""Text augmentation: messages of the smaller classes are repeated, and each repeat is changed a little.

Source: Wei and Zou, EDA: Easy Data Augmentation (1901.11196), random swap and deletion; character noise after Belinkov and
Bisk, Synthetic and Natural Noise (1711.02173). Synonyms are left out: they would need a thesaurus of the messages' language.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ballast.parameters import require_positive
from ballast.sampling import make_sampler, upsampled_counts
from ballast.technique import Technique, no_prior


def swapped(words: list[str], rng: np.random.Generator) -> list[str]:
    """Two words change places."""
    first, second = rng.integers(len(words), size=2)
    words[first], words[second] = words[second], words[first]
    return words


def deleted(words: list[str], rng: np.random.Generator) -> list[str]:
    """One word is left out, unless it is the only one."""
    at = rng.integers(len(words))
    return words[:at] + words[at + 1 :] or words


def noised(words: list[str], rng: np.random.Generator) -> list[str]:
    """Two neighbouring characters of a word change places."""
    at = rng.integers(len(words))
    word = words[at]
    if len(word) > 1:
        left = rng.integers(len(word) - 1)
        words[at] = word[:left] + word[left + 1] + word[left] + word[left + 2 :]
    return words


EDITS = (swapped, deleted, noised)


def augmented(text: str, strength: float, rng: np.random.Generator) -> str:
    """The text after one random edit for each `1 / strength` words, at least one."""
    words = text.split()
    for _ in range(max(1, round(strength * len(words)))):
        if words:
            words = EDITS[rng.integers(len(EDITS))](words, rng)
    return " ".join(words)


def build(counts: np.ndarray, labels: Sequence[str], *, ratio: float = 1.0, strength: float = 0.1) -> Technique:
    """Repeat as upsample does; a repeat has about `strength` of its words swapped, left out or misspelt."""
    wanted = upsampled_counts(counts, require_positive("augment.ratio", ratio))
    share = require_positive("augment.strength", strength, at_most=1)

    def texts(texts: Sequence[str], repeated: np.ndarray, rng: np.random.Generator) -> list[str]:
        return [augmented(text, share, rng) if again else text for text, again in zip(texts, repeated, strict=True)]

    return Technique(sample=make_sampler(wanted, keep_expected_loss=False), texts=texts, declared_prior=no_prior)
