"""What an evaluation compares techniques on: out-of-fold and test messages, production prior, rule and bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ballast.evaluation.operating_point import Rule
from ballast.evaluation.post_hoc import LinearHead
from ballast.evaluation.statistic import LabelledScores


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled messages: classes (n,), groups (n,) numbered from 0."""

    classes: np.ndarray
    groups: np.ndarray

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1

    def counts(self, classes: int) -> list[int]:
        """Messages of each of the K classes."""
        counts: list[int] = np.bincount(self.classes, minlength=classes).tolist()
        return counts

    def subset(self, rows: np.ndarray) -> Labelled:
        """Some rows (n,) of the messages, with the same group numbers."""
        return Labelled(classes=self.classes[rows], groups=self.groups[rows])

    def renumbered(self) -> Labelled:
        """The same messages with groups numbered from 0."""
        return Labelled(classes=self.classes, groups=np.unique(self.groups, return_inverse=True)[1])


@dataclass(frozen=True, kw_only=True)
class OutOfFold(Labelled):
    """The messages of the validation folds of all trainings, in the order of the trainings.

    training : (n,) position of the training that scores the message without having seen its group.
    part : (n,) part for cross-fitting: what is applied to a part is fitted on the others. A group lies in one part.
    copies : scores per message; above 1 if trainings share a fold.
    """

    training: np.ndarray
    part: np.ndarray
    copies: float = 1.0

    def rows_outside(self, part: int) -> np.ndarray:
        """Which rows (n,) to fit on for a part: those outside it, or all if a class would be missing."""
        outside = self.part != part
        complete = len(np.unique(self.classes[outside])) == len(np.unique(self.classes))
        return outside if complete else np.ones(len(outside), dtype=bool)


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """One training's logits of its validation fold (n, K), of test (m, K) and of some training messages (t, K).

    validation_rows : (n,) row numbers of the validation messages in the table of messages.
    train_classes : (t,) of the training messages.
    declared_prior : (K,) or None.
    head : norms and bias of a linear head, if the model has one.
    """

    validation: np.ndarray
    validation_rows: np.ndarray
    test: np.ndarray
    train: np.ndarray
    train_classes: np.ndarray
    declared_prior: np.ndarray | None
    head: LinearHead | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings that all techniques share: labels, messages, production prior (K,), operating rule, bootstrap.

    safe_odds_ratio : largest odds ratio between the fitted and the production prior of a technique that is safe.
    """

    names: Sequence[str]
    out_of_fold: OutOfFold
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

    def class_shares(self, messages: Labelled) -> np.ndarray:
        """Share (K,) of each class among some messages."""
        return np.bincount(messages.classes, minlength=len(self.names)) / len(messages.classes)

    def production_weights(self, messages: Labelled) -> np.ndarray:
        """Weight (K,) of each class's messages that gives the production prior; 1 if the messages already have it."""
        share = self.class_shares(messages)
        stratified = np.abs(share - self.production_prior).max() < 1 / len(messages.classes)
        return np.ones(len(self.names)) if stratified else self.production_prior / share

    def scores(self, messages: Labelled, logits: np.ndarray, class_weights: np.ndarray) -> LabelledScores:
        """Messages with logits (n, K) and weights (K,) of the messages of each class."""
        return LabelledScores(self.names, messages.classes, logits, messages.groups, class_weights)

    def test_scores(self, logits: np.ndarray, class_weights: np.ndarray) -> LabelledScores:
        """The test messages with logits (n, K) and weights (K,) of the messages of each class."""
        return self.scores(self.test, logits, class_weights)
