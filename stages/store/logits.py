"""Saved logits of every technique, corrected to the production prior."""

from __future__ import annotations

from typing import Any

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.post_hoc import LinearHead
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.protocol import Labelled, SeedScores
from stages.store.checked import read_arrays
from stages.store.messages import Messages
from stages.store.project import PROJECT, Project
from stages.store.remedies import damaged


class Corrected:
    """Saved logits by technique and seed, on the production prior (K,)."""

    def __init__(self, evaluations: dict[str, Any], labels: list[str], production: np.ndarray) -> None:
        self.evaluations, self.labels, self.production = evaluations, labels, production

    def logits(self, name: str, seed: int, split: str) -> np.ndarray:
        """Corrected logits (n, K) of `validation` or `test`."""
        effective = self.evaluations[name]["seeds"][str(seed)]["effective_prior"]
        scores, _ = seed_scores(name, seed)
        logits = scores.validation if split == "validation" else scores.test
        return correct_prior(logits.astype(np.float64), np.array([effective[label] for label in self.labels]), self.production)


def labelled(messages: Messages, split: str) -> Labelled:
    """Classes and groups of a split."""
    rows = messages.of(split)
    return Labelled(classes=rows["class"].to_numpy(), groups=np.unique(rows["group"], return_inverse=True)[1])


def seed_scores(name: str, seed: int, project: Project = PROJECT) -> tuple[SeedScores, int]:
    """The saved logits of one seed, and the number of parameters of its model."""
    path = project.logits / name / f"{seed}.npz"
    saved = read_arrays(path)
    try:
        declared = saved["declared_prior"]
        scores = SeedScores(
            validation=saved["validation"],
            test=saved["test"],
            train=saved["train"],
            train_classes=saved["train_classes"],
            declared_prior=None if np.isnan(declared).any() else declared,
            head=LinearHead(norms=saved["head_norms"], bias=saved["head_bias"]) if "head_norms" in saved else None,
        )
        return scores, int(saved["parameters"])
    except KeyError as error:
        raise damaged(path, f"no array {error} among the saved logits") from error


def read_draws(name: str, family: str) -> Draws:
    """The bootstrap draws that `evaluate` saved for a technique; `family` is raw, corrected or operating_point."""
    path = PROJECT.evaluations / f"{name}.npz"
    saved = read_arrays(path)
    try:
        metrics = saved[f"{family}.metrics"].tolist()
        return Draws(
            values=dict(zip(metrics, saved[f"{family}.draws"], strict=True)),
            seeds=dict(zip(metrics, saved[f"{family}.seeds"], strict=True)),
            correct=saved[f"{family}.correct"],
        )
    except KeyError as error:
        raise damaged(path, f"no array {error} among the saved draws") from error
