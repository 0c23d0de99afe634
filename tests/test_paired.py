"""Differences between two ways to decide by the same trainings, with planted truths."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from ballast.evaluation.bootstrap import Draws, percentile_interval
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.paired import Difference, differences_on_test
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.evaluation.seed_variation import with_seed_variation

SEEDS, MESSAGES = 3, 400


def protocol_of(labels: np.ndarray, resamples: int = 200) -> Protocol:
    rows = np.arange(len(labels))
    return Protocol(
        names=["ham", "spam"],
        out_of_fold=out_of_fold([rows], labels, rows),
        test=Labelled(classes=labels, groups=rows),
        production_prior=np.array([0.5, 0.5]),
        resamples=resamples,
        confidence=0.95,
        seed=0,
    )


def simulated(seed: int, of_trainings: float) -> tuple[list[Decisions], list[Decisions], Protocol]:
    """Two ways to decide with an error rate of 30% and 20%; the second has a deviation `of_trainings` between trainings."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=MESSAGES)
    protocol = protocol_of(labels)
    rates = ([0.3] * SEEDS, rng.normal(0.2, of_trainings, SEEDS))
    before, after = (
        [
            Decisions(protocol.test_scores(np.eye(2)[np.where(rng.random(MESSAGES) < rate, 1 - labels, labels)], np.ones(2)))
            for rate in of_side
        ]
        for of_side in rates
    )
    return before, after, protocol


@pytest.mark.parametrize(("of_trainings", "least"), [(0.0, 54), (0.05, 50)])
def test_the_interval_covers_a_planted_difference(of_trainings: float, least: int) -> None:
    measure = partial(differences_on_test, means={"accuracy": ["accuracy"]})
    covered, widths = [], []
    for seed in range(60):
        before, after, protocol = simulated(seed, of_trainings)
        difference = measure(before, after, protocol=protocol)["accuracy"]
        low, high = percentile_interval(difference.draws, 0.95)
        covered.append(low <= 0.1 <= high)
        widths.append(high - low)
    # The 3% quantiles of the binomial if the coverage is 95%, and 91%. Without the variation between trainings it would be 69%.
    assert np.sum(covered) >= least
    if not of_trainings:
        # No trainings vary. The standard error over messages is sqrt((0.3 * 0.7 + 0.2 * 0.8) / 1200): the interval is close.
        exact = 2 * 1.96 * np.sqrt((0.3 * 0.7 + 0.2 * 0.8) / (SEEDS * MESSAGES))
        assert np.median(widths) < 1.25 * exact


def test_chance_on_single_messages_counts_once() -> None:
    """The variance between seeds as a whole, on top of the bootstrap, would count it twice: wider by half and more."""
    narrower = []
    for seed in range(20):
        before, after, protocol = simulated(seed, 0.0)
        difference = differences_on_test(before, after, {"accuracy": ["accuracy"]}, protocol)["accuracy"]
        every = np.ones((1, MESSAGES))
        by_seed = np.array(
            [(own(every)["accuracy"] - other(every)["accuracy"])[0] for own, other in zip(after, before, strict=True)]
        )
        drawn = difference.draws - np.mean(difference.draws) + by_seed.mean()
        doubled = with_seed_variation(
            {"": Draws(values={"accuracy": drawn}, seeds={"accuracy": by_seed}, correct=np.ones((SEEDS, 1), dtype=bool))}
        )[""].values["accuracy"]
        narrower.append(
            np.subtract(*percentile_interval(difference.draws, 0.95)) / np.subtract(*percentile_interval(doubled, 0.95))
        )
    assert np.median(narrower) < 0.75


def test_a_mean_of_metrics_is_resampled_as_one() -> None:
    before, after, protocol = simulated(0, 0.0)
    found = differences_on_test(before, after, {"both": ["ham.f1", "spam.f1"], "macro_f1": ["macro_f1"]}, protocol)
    assert found["both"].value == pytest.approx(found["macro_f1"].value)
    assert found["both"].before == pytest.approx(found["macro_f1"].before)
    np.testing.assert_allclose(found["both"].draws, found["macro_f1"].draws, atol=1e-5)


def test_the_verdict_follows_the_interval() -> None:
    draws = np.random.default_rng(0).normal(0, 0.002, 2000)
    for value, word in ((0.05, "better"), (-0.05, "worse"), (0.0, "equivalent")):
        assert Difference(before=0.8, value=value, draws=value + draws).entry(0.95, 0.02)["verdict"] == word
    wide = Difference(before=0.8, value=0.0, draws=40 * draws).entry(0.95, 0.02)
    assert wide["verdict"] == "not shown" and wide["low"] < -wide["margin"]
