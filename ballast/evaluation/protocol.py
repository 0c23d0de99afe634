"""What an evaluation compares techniques on: the labelled splits, the production prior, the rule and the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ballast.evaluation.operating_point import Rule
from ballast.evaluation.post_hoc import LinearHead
from ballast.evaluation.statistic import LabelledScores


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled messages of a split: classes (n,), groups (n,) numbered from 0."""

    classes: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """One seed's logits (n, K) of validation, test and some training messages (m, K), with the classes (m,) of the latter.

    declared_prior : (K,) or None.
    head : norms and bias of a linear head, if the model has one.
    """

    validation: np.ndarray
    test: np.ndarray
    train: np.ndarray
    train_classes: np.ndarray
    declared_prior: np.ndarray | None
    head: LinearHead | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings that all techniques share: labels, splits, production prior (K,), operating rule, bootstrap.

    safe_odds_ratio : a fitted prior within this ratio of the odds of the production prior is equivalent to it.
    """

    names: Sequence[str]
    validation: Labelled
    test: Labelled
    production_prior: np.ndarray
    resamples: int
    confidence: float
    seed: int
    rule: Rule = field(default_factory=Rule)
    safe_odds_ratio: float = 1.5

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Values (K,) by label name."""
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def class_shares(self, split: Labelled) -> np.ndarray:
        """Share (K,) of each class in a split."""
        return np.bincount(split.classes, minlength=len(self.names)) / len(split.classes)

    def production_weights(self, split: Labelled) -> np.ndarray:
        """Weight (K,) of each class's messages that gives the production prior; 1 if the split already has it."""
        share = self.class_shares(split)
        stratified = np.abs(share - self.production_prior).max() < 1 / len(split.classes)
        return np.ones(len(self.names)) if stratified else self.production_prior / share

    def test_scores(self, logits: np.ndarray, class_weights: np.ndarray) -> LabelledScores:
        """The test split with logits (n, K) and weights (K,) of the messages of each class."""
        return LabelledScores(self.names, self.test.classes, logits, self.test.groups, class_weights)
