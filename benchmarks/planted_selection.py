"""Simulated selections with planted truths: level techniques and a better one, new rule and old ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

from ballast.evaluation.bootstrap import Draws, bootstrap_draws
from ballast.evaluation.one_standard_error import Candidate, select

METRIC = "spam.f1"
SHARE = 0.13
# As in the default run on the SMS Spam Collection: three folds of 65 rare messages each, and a test set of 131.
FOLDS, FOLD_SIZE, TEST_SIZE = 3, 500, 1000
# The distance between the classes differs by training; F1 by about 0.006.
TRAINING_DEVIATION = 0.1
DISTANCE, OFFSET = 4.0, -0.3
# Standard deviations of what makes a message hard: for all techniques, for one technique, for one training.
HARDNESS, OWN, CHANCE = 0.8, 0.3, 0.3
OLD_TOLERANCE = 0.01


def f1_of(distance: np.ndarray) -> np.ndarray:
    """F1 on endless fresh messages of trainings with a distance between the classes."""
    deviation = np.sqrt(HARDNESS**2 + OWN**2 + CHANCE**2)
    hit = SHARE * norm.sf(0, distance / 2 + OFFSET, deviation)
    false = (1 - SHARE) * norm.sf(0, -distance / 2 + OFFSET, deviation)
    return 2 * hit / (hit + false + SHARE)


def true_f1(distance: float) -> float:
    """Mean F1 on fresh messages over trainings."""
    points, weights = np.polynomial.hermite_e.hermegauss(21)
    return float(np.average(f1_of(distance + TRAINING_DEVIATION * points), weights=weights))


@cache
def distance_for(f1: float) -> float:
    """The distance between the classes with which a technique has a mean F1."""
    grid = np.linspace(1, 9, 2001)
    return float(np.interp(f1, [true_f1(distance) for distance in grid], grid))


@dataclass(frozen=True, kw_only=True)
class World:
    """Decisions (T, S, n) on test by training, and (T, n) on out-of-fold messages, each scored by the training of its fold."""

    labels: np.ndarray
    fold: np.ndarray
    decided: np.ndarray
    test_labels: np.ndarray
    test_decided: np.ndarray


def world(distances: np.ndarray, rng: np.random.Generator) -> World:
    """A simulated data set and the trainings of techniques (T,) on it."""

    def decisions(labels: np.ndarray, quality: np.ndarray) -> np.ndarray:
        size = (len(distances), len(labels))
        noise = HARDNESS * rng.normal(size=len(labels)) + OWN * rng.normal(size=size) + CHANCE * rng.normal(size=size)
        return np.asarray(quality * (labels - 0.5) + noise + OFFSET > 0)

    quality = distances[:, None] + TRAINING_DEVIATION * rng.normal(size=(len(distances), FOLDS))
    labels, test_labels = ((rng.random(size) < SHARE).astype(int) for size in (FOLDS * FOLD_SIZE, TEST_SIZE))
    fold = np.repeat(np.arange(FOLDS), FOLD_SIZE)
    on_test = [decisions(test_labels, quality[:, [training]]) for training in range(FOLDS)]
    return World(
        labels=labels, fold=fold, decided=decisions(labels, quality[:, fold]), test_labels=test_labels,
        test_decided=np.stack(on_test, axis=1),
    )  # fmt: skip


def f1(decided: np.ndarray, labels: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """F1 (..., T) of decisions (T, n), for counts (..., n) of the messages."""
    counts = np.ones(len(labels), dtype=np.float32) if counts is None else counts
    # One product in the precision of the counts.
    both = np.concatenate([decided & (labels == 1), decided]).T.astype(np.float32)
    hits, assigned = np.split((counts @ both).astype(float), 2, axis=-1)
    return np.asarray(2 * hits / np.maximum(assigned + (counts @ labels)[..., None], 1))


def candidates(made: World, costs: np.ndarray, resamples: int, seed: int) -> dict[str, Candidate]:
    """The techniques as candidates, with bootstrap draws of the out-of-fold messages."""
    drawn = bootstrap_draws(
        lambda counts: dict(enumerate(f1(made.decided, made.labels, counts).T)), len(made.labels), resamples, seed
    )
    by_fold = np.stack([f1(made.decided[:, rows], made.labels[rows]) for rows in (made.fold == at for at in range(FOLDS))], 1)
    pooled = f1(made.decided, made.labels)
    right = made.decided == made.labels
    return {
        name_of(number): Candidate(
            draws=Draws(
                values={METRIC: drawn[number]},
                seeds={METRIC: by_fold[number]},
                correct=right[[number]],
            ),
            values={METRIC: float(pooled[number])},
            multiply_adds=float(costs[number]),
            safe="unknown",
        )
        for number in range(len(costs))
    }


def name_of(number: int) -> str:
    """Name of a technique; the first is the baseline."""
    return "baseline" if number == 0 else f"t{number}"


def picks(distances: np.ndarray, costs: np.ndarray, *, resamples: int, seed: int) -> tuple[dict[str, int], np.ndarray]:
    """The technique that each rule picks, and the test F1 (T,)."""
    made = world(distances, np.random.default_rng(seed))
    entries = candidates(made, costs, resamples, seed)
    names = list(entries)
    rules = {
        rule: names.index(
            select(entries, ["ham", "spam"], metric=METRIC, rule=rule, constraints={}, safe_only=False, reference="baseline")[
                "technique"
            ]
        )
        for rule in ("one_standard_error", "best")
    }
    test = np.mean([f1(made.test_decided[:, training], made.test_labels) for training in range(FOLDS)], axis=0)
    tied = np.flatnonzero(test >= test.max() - OLD_TOLERANCE)
    rules["smallest within 0.01 on test"] = int(min(tied, key=lambda number: (costs[number], -test[number])))
    rules["best on test"] = int(test.argmax())
    # The default of former versions.
    one_seed = f1(made.test_decided[:, 0], made.test_labels)
    tied = np.flatnonzero(one_seed >= one_seed.max() - OLD_TOLERANCE)
    rules["smallest within 0.01 on test, one seed"] = int(min(tied, key=lambda number: (costs[number], -one_seed[number])))
    rules["best on test, one seed"] = int(one_seed.argmax())
    return rules, test


def selection_figures(
    better_by: float, costs: np.ndarray, *, simulations: int, resamples: int = 1000, jobs: int = 1
) -> Mapping[str, object]:
    """How often each rule picks a level technique, its loss in F1 on fresh data, and how optimistic the test F1 of its pick is.

    The last technique is better by `better_by` in F1 than the others, which have 0.95.
    """
    truth = np.full(len(costs), 0.95)
    truth[-1] += better_by
    distances = np.array([distance_for(value) for value in truth])
    found = Parallel(n_jobs=jobs)(
        delayed(picks)(distances, costs, resamples=resamples, seed=seed) for seed in range(simulations)
    )
    return {
        rule: {
            "worse": float(np.mean([truth[rules[rule]] < truth.max() for rules, _ in found])),
            "loss": float(np.mean([truth.max() - truth[rules[rule]] for rules, _ in found])),
            "optimism": float(np.mean([test[rules[rule]] - truth[rules[rule]] for rules, test in found])),
            "cost": float(np.mean([costs[rules[rule]] for rules, _ in found])),
        }
        for rule in found[0][0]
    }
