"""Simulated techniques whose truth is known: one is better than the reference, nine are level with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.comparison import compare, with_seed_variation
from ballast.evaluation.intervals import pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.protocol import Labelled, Protocol

SIMULATIONS, TECHNIQUES, SEEDS = 200, 10, 3
MESSAGES, SHARE = 600, 0.13
METRIC = "spam.f1"


def simulated(distance: float, labels: np.ndarray, hardness: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Logits (n, 2) by seed: what makes a message hard is common to all, the rest is the technique's and the seed's own."""
    scores = []
    own = 0.5 * rng.normal(size=len(labels))
    for _ in range(SEEDS):
        quality = distance + 0.1 * rng.normal()
        noise = hardness + own + 0.5 * rng.normal(size=len(labels))
        scores.append(quality * (labels - 0.5) + noise - 0.3)
    return [np.stack([np.zeros_like(score), score], axis=1) for score in scores]


def verdicts(better_by: float, seed: int) -> dict[str, str]:
    """The verdict on each technique of one simulated comparison; `t0` is better by so much distance between the classes."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(MESSAGES) < SHARE).astype(int)
    groups = np.unique(rng.integers(0, 3 * MESSAGES, MESSAGES), return_inverse=True)[1]
    hardness = rng.normal(size=MESSAGES)
    test = Labelled(classes=labels, groups=groups)
    protocol = Protocol(
        names=["ham", "spam"], validation=test, test=test, production_prior=np.bincount(labels) / MESSAGES,
        resamples=1500, confidence=0.95, seed=seed,
    )  # fmt: skip
    distances = {"baseline": 3.0} | {f"t{at}": 3.0 + better_by * (at == 0) for at in range(TECHNIQUES)}
    logits = {name: simulated(distance, labels, hardness, rng) for name, distance in distances.items()}
    families = {name: [Decisions(protocol.test_scores(each, np.ones(2))) for each in scores] for name, scores in logits.items()}
    drawn = pooled_draws(families, protocol)
    everything = np.ones((1, groups.max() + 1))
    techniques = {
        name: Draws(
            values={METRIC: drawn[name][METRIC]},
            seeds={METRIC: np.array([each(everything)[METRIC][0] for each in families[name]])},
            correct=np.stack([each.argmax(axis=1) == labels for each in logits[name]]),
        )
        for name in distances
    }
    found = compare(with_seed_variation(techniques), "baseline", [METRIC], 0.95, frozenset())
    return {name: each["metrics"][METRIC]["verdict"] for name, each in found.items()}


def test_a_planted_truth_is_found_and_little_else(capsys: pytest.CaptureFixture[str]) -> None:
    """At most 19 of 200 comparisons call a level technique better: 5% with the 99% bound of so many."""
    found = [verdicts(1.0, seed) for seed in range(SIMULATIONS)]
    false = sum(any(verdict == "better" for name, verdict in each.items() if name != "t0") for each in found)
    power = np.mean([each["t0"] == "better" for each in found])
    with capsys.disabled():
        print(f"\n{SIMULATIONS} simulated comparisons: power {power:.2f}, {false} with a false 'better'")
    most = int(binom.ppf(0.99, SIMULATIONS, 0.05))
    assert most <= 19 and false <= most
    assert power > 0.3
