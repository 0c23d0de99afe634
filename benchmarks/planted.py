"""Simulated techniques with planted truths, for the statistics of the protocol: safety, verdicts, intervals, selection."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logit

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.comparison import compare
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.intervals import pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.priors import Safety, fit_prior
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.evaluation.seed_variation import with_seed_variation

METRIC = "spam.f1"
# Standard deviation of a training's class distance: F1 of seeds differs by about 0.01.
TRAINING_DEVIATION = 0.1


def safety_of(rare: int, production: float, prior: float, *, distance: float, seed: int) -> Safety:
    """The answer on posteriors that are right for a share `prior` of the rare class when production has `production`.

    rare : held-out messages of the rare class. The scores of the classes are normal, `distance` standard deviations apart.
    """
    rng = np.random.default_rng([seed, rare])
    labels = np.repeat([0, 1], [round(rare * (1 - production) / production), rare])
    evidence = distance * (rng.normal(size=len(labels)) + distance * (labels - 0.5))
    logits = np.stack([np.zeros(len(labels)), evidence + logit(prior)], axis=1)
    fitted = fit_prior(logits, labels, np.arange(len(labels)), confidence=0.95)
    return fitted.safety(np.array([1 - production, production]), odds_ratio=1.5)


def simulated(
    distance: float, labels: np.ndarray, hardness: np.ndarray, seeds: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Logits (n, 2) by seed: what makes a message hard is common to all, the rest is the technique's and the seed's own."""
    scores = []
    own = 0.5 * rng.normal(size=len(labels))
    for _ in range(seeds):
        quality = distance + TRAINING_DEVIATION * rng.normal()
        noise = hardness + own + 0.5 * rng.normal(size=len(labels))
        scores.append(quality * (labels - 0.5) + noise - 0.3)
    return [np.stack([np.zeros_like(score), score], axis=1) for score in scores]


def simulated_comparison(
    better_by: float, *, techniques: int, seeds: int, messages: int, share: float, seed: int
) -> dict[str, dict[str, Any]]:
    """One comparison of techniques with the baseline on a test set; `t0` is better by so much distance between the classes."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(messages) < share).astype(int)
    groups = np.unique(rng.integers(0, 3 * messages, messages), return_inverse=True)[1]
    hardness = rng.normal(size=messages)
    test = Labelled(classes=labels, groups=groups)
    protocol = Protocol(
        names=["ham", "spam"], out_of_fold=out_of_fold([np.arange(messages)], labels, groups), test=test,
        production_prior=np.bincount(labels) / messages,
        resamples=1500, confidence=0.95, seed=seed,
    )  # fmt: skip
    distances = {"baseline": 3.0} | {f"t{number}": 3.0 + better_by * (number == 0) for number in range(techniques)}
    logits = {name: simulated(distance, labels, hardness, seeds, rng) for name, distance in distances.items()}
    families = {
        name: [Decisions(protocol.test_scores(scores, np.ones(2))) for scores in by_seed] for name, by_seed in logits.items()
    }
    drawn = pooled_draws(families, test, protocol)
    everything = np.ones((1, groups.max() + 1))
    draws = {
        name: Draws(
            values={METRIC: drawn[name].values[METRIC]},
            chance={METRIC: drawn[name].chance[METRIC]},
            seeds={METRIC: np.array([statistic(everything)[METRIC][0] for statistic in families[name]])},
            correct=np.stack([scores.argmax(axis=1) == labels for scores in logits[name]]),
        )
        for name in distances
    }
    compared: Any = compare(with_seed_variation(draws), "baseline", [METRIC], 0.95, frozenset())
    return {name: entry["metrics"][METRIC] for name, entry in compared.items()}
