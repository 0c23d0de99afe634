"""Saved logits and draws of every technique, and the protocol of their evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.post_hoc import LinearHead
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.protocol import Labelled, Protocol, SeedScores
from ballast.exceptions import UserError
from stages.store.checked import read_arrays
from stages.store.messages import Messages
from stages.store.params import Params
from stages.store.project import PROJECT, Project
from stages.store.protocol import operating_rule, production_prior
from stages.store.remedies import damaged


@dataclass(frozen=True, kw_only=True)
class Training:
    """The saved scores of one training, the number of parameters of its model, and its multiply-adds per message."""

    scores: SeedScores
    parameters: int
    multiply_adds: int


class Corrected:
    """Saved logits by technique, on the production prior (K,), as the fit on the out-of-fold scores corrects them."""

    def __init__(self, evaluations: Mapping[str, Any], labels: list[str], production: np.ndarray) -> None:
        self.evaluations, self.labels, self.production = evaluations, labels, production

    def correct(self, name: str, logits: np.ndarray) -> np.ndarray:
        """Logits (n, K) of a technique, corrected."""
        effective = self.evaluations[name]["fitted"]["effective_prior"]
        return correct_prior(logits.astype(np.float64), np.array([effective[label] for label in self.labels]), self.production)

    def test(self, name: str, seed: int) -> np.ndarray:
        """Corrected logits (n, K) of the test messages by one seed."""
        return self.correct(name, read_training(name, seed).scores.test)

    def out_of_fold(self, name: str, seeds: Iterable[int]) -> np.ndarray:
        """Corrected logits (n, K) of the out-of-fold messages, in the order of the seeds."""
        return self.correct(name, np.concatenate([read_training(name, seed).scores.validation for seed in seeds]))


def test_messages(messages: Messages) -> Labelled:
    """Classes and groups of the test messages."""
    rows = messages.test()
    return Labelled(classes=rows["class"].to_numpy(), groups=np.unique(rows["group"], return_inverse=True)[1])


def read_training(name: str, seed: int, project: Project = PROJECT) -> Training:
    """The saved scores of one training; raises UserError if the file is damaged."""
    path = project.logits / name / f"{seed}.npz"
    saved = read_arrays(path)
    try:
        declared = saved["declared_prior"]
        scores = SeedScores(
            validation=saved["validation"],
            validation_rows=saved["validation_rows"],
            test=saved["test"],
            train=saved["train"],
            train_classes=saved["train_classes"],
            declared_prior=None if np.isnan(declared).any() else declared,
            head=LinearHead(norms=saved["head_norms"], bias=saved["head_bias"]) if "head_norms" in saved else None,
        )
        return Training(scores=scores, parameters=int(saved["parameters"]), multiply_adds=int(saved["multiply_adds"]))
    except KeyError as error:
        raise damaged(path, f"no array {error} among the saved logits") from error


def read_trainings(name: str, seeds: Iterable[int], messages: Messages, project: Project = PROJECT) -> dict[int, Training]:
    """The saved scores of a technique by seed; raises UserError if they are of other messages than the table holds."""
    trainings = {seed: read_training(name, seed, project) for seed in seeds}
    for seed, training in trainings.items():
        scores = training.scores
        expected = messages.validation(seed).index.to_numpy()
        if not np.array_equal(scores.validation_rows, expected) or len(scores.test) != len(messages.test()):
            raise UserError(
                f"{project.logits / name / f'{seed}.npz'}: scores other messages than {project.messages} holds out;"
                " run `dvc repro`"
            )
    return trainings


def read_draws(name: str, family: str, project: Project = PROJECT) -> Draws:
    """The bootstrap draws that `evaluate` saved for a technique.

    family : raw, corrected or operating_point, of test; or out_of_fold, at the operating point.
    """
    path = project.evaluations / f"{name}.npz"
    saved = read_arrays(path)
    try:
        metrics = saved[f"{family}.metrics"].tolist()
        pooled, chance = saved.get(f"{family}.pooled"), saved.get(f"{family}.chance")
        return Draws(
            values=dict(zip(metrics, saved[f"{family}.draws"], strict=True)),
            seeds=dict(zip(metrics, saved[f"{family}.seeds"], strict=True)),
            correct=saved[f"{family}.correct"],
            chance={} if chance is None else dict(zip(metrics, chance.tolist(), strict=True)),
            pooled=None if pooled is None else dict(zip(metrics, pooled.tolist(), strict=True)),
        )
    except KeyError as error:
        raise damaged(path, f"no array {error} among the saved draws") from error


def protocol_of(params: Params, messages: Messages, counts: Mapping[str, int], trainings: Mapping[int, Training]) -> Protocol:
    """The protocol that params set for the messages and the trainings of one technique.

    counts : all messages by label, for the production prior.
    """
    production = production_prior(params.production.prior, counts)
    return Protocol(
        names=messages.names,
        out_of_fold=out_of_fold(
            [training.scores.validation_rows for training in trainings.values()],
            messages.table["class"].to_numpy(),
            messages.table["group"].to_numpy(),
        ),
        test=test_messages(messages),
        production_prior=production,
        rule=operating_rule(params.operating_point, messages.names, production),
        resamples=params.evaluate.resamples,
        confidence=params.evaluate.confidence,
        seed=params.evaluate.seed,
        safe_odds_ratio=params.evaluate.safe_odds_ratio,
    )
