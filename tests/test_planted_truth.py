"""Simulated techniques whose truth is known: one is better than the reference, nine are level with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.planted import simulated_comparison
from benchmarks.protocol import MARGIN, comparison_figures

SETTINGS = {"techniques": 10, "messages": 600, "share": 0.13}


@pytest.mark.parametrize(("seeds", "simulations", "power"), [(1, 20, 0.0), (2, 40, 0.1), (3, 60, 0.3)])
def test_a_planted_truth_is_found_and_little_else(
    seeds: int, simulations: int, power: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most 5% of the comparisons say better of a level technique, with the 99% bound of so many."""
    runs = [simulated_comparison(1.0, seeds=seeds, seed=seed, **SETTINGS) for seed in range(simulations)]
    level = [[entry["verdict"] for name, entry in run.items() if name != "t0"] for run in runs]
    false = sum("better" in verdicts for verdicts in level)
    found = np.mean([run["t0"]["verdict"] == "better" for run in runs])
    with capsys.disabled():
        print(f"\n{simulations} simulated comparisons of {seeds} seeds: power {found:.2f}, {false} with a false 'better'")
    assert false <= binom.ppf(0.99, simulations, 0.05)
    assert found >= power
    assert not any("equivalent" in run["t0"]["verdict"] for run in runs), "it is better by far more than the margin"
    if seeds == 1:
        assert found == 0, "one seed shows large differences only"


@pytest.mark.parametrize("better_by", [0.03, -MARGIN])
def test_intervals_cover_and_verdicts_are_seldom_false_under_rotating_folds(better_by: float) -> None:
    """Three trainings, each scored on its own fold and all on one test set; small version of benchmarks/protocol.py."""
    simulations = 20
    found = comparison_figures(better_by, simulations=simulations, techniques=5, resamples=300, jobs=1)
    for kind in ("test", "out_of_fold"):
        assert found[kind]["coverage"] > 0.88 and found[kind]["coverage_of_differences"] > 0.88
        for error in ("false_better", "false_worse", "better" if better_by < 0 else "worse"):
            assert simulations * found[kind][error] <= binom.ppf(0.99, simulations, 0.05), (kind, error)
        assert simulations * found[kind]["equivalent"] <= binom.ppf(0.99, simulations, 0.05)
    assert better_by < 0 or found["out_of_fold"]["better"] > 0.1
