"""Measure the statistics of the protocol on simulated techniques with planted truths.

Whether raw posteriors that are wrong are ever safe; coverage of the 95% intervals; false verdicts; the smallest difference;
mistakes and losses of the selection rules. It needs no data and no training.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ballast.evaluation.bootstrap import Draws, bootstrap_draws, percentile_interval, seed_noise
from ballast.evaluation.comparison import compare
from ballast.evaluation.intervals import over_seeds
from ballast.evaluation.seed_variation import training_variance, with_seed_variation, with_training_variation
from benchmarks.measuring import surroundings, write_result
from benchmarks.planted import safety_of
from benchmarks.planted_selection import FOLDS, METRIC, World, candidates, distance_for, f1, name_of, selection_figures, world

JOBS = 2
CONFIDENCE = 0.95
PRODUCTION = 0.13
RARE = (65, 200, 1000)
# F1 of level techniques and by how much one is better.
LEVEL, BETTER_BY = 0.95, (0.0, 0.005, 0.01, 0.02)
# A margin that a comparison of three seeds can show. A technique that is worse by the margin must seldom be called equivalent.
MARGIN = 0.03


def safety_figures(simulations: int) -> list[dict[str, Any]]:
    """Answers on posteriors that are right for production and for equal shares, by the number of rare messages."""
    return [
        {
            "distance": distance,
            "rare": rare,
            "right_for": prior,
            **Counter(safety_of(rare, PRODUCTION, prior, distance=distance, seed=seed) for seed in range(simulations)),
        }
        for distance in (3.0, 4.5)
        for rare in RARE
        for prior in (PRODUCTION, 0.5)
    ]


def test_draws(made: World, resamples: int, seed: int) -> dict[str, Draws]:
    """Draws of the mean over trainings on the test messages."""

    def of_trainings(counts: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        by_training = [f1(made.test_decided[:, training], made.test_labels, counts) for training in range(FOLDS)]
        return {
            (number, training): values for training, of_all in enumerate(by_training) for number, values in enumerate(of_all.T)
        }

    by_training = bootstrap_draws(of_trainings, len(made.test_labels), resamples, seed)
    drawn = [
        over_seeds([by_training[number, training] for training in range(FOLDS)]) for number in range(len(made.test_decided))
    ]
    seeds = np.stack([f1(made.test_decided[:, training], made.test_labels) for training in range(FOLDS)], axis=1)
    right = made.test_decided == made.test_labels
    return {
        name_of(number): Draws(
            values={METRIC: mean}, seeds={METRIC: seeds[number]}, correct=right[number], chance={METRIC: chance}
        )
        for number, (mean, chance) in enumerate(drawn)
    }


def covers(draws: Draws, deviation: float, degrees: float, truth: float, seed: int) -> bool:
    """Whether the interval of one technique's mean over trainings contains the truth."""
    rng = np.random.default_rng(seed)
    noise = seed_noise(deviation, FOLDS, len(draws.values[METRIC]), rng, degrees)
    low, high = percentile_interval(draws.values[METRIC] + noise, CONFIDENCE)
    return low <= truth <= high


def compared_once(truth: np.ndarray, distances: np.ndarray, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """One simulated run: by messages (test, out of fold), coverage of intervals and differences, and verdicts."""
    made = world(distances, np.random.default_rng(seed))
    entries = candidates(made, np.ones(len(distances)), resamples, seed)
    on_test, held_out = test_draws(made, resamples, seed), {name: entry.draws for name, entry in entries.items()}
    deviation = np.sqrt(training_variance(list(held_out.values()), METRIC)[0])
    found: dict[str, dict[str, Any]] = {}
    for kind, plain, varied in (
        ("test", on_test, with_seed_variation(on_test)),
        ("out_of_fold", held_out, with_training_variation(held_out)),
    ):
        compared: Any = compare(varied, "baseline", [METRIC], CONFIDENCE, frozenset(), MARGIN)
        differences = [compared[name]["metrics"][METRIC] for name in list(plain)[1:]]
        own = [np.sqrt(max(0.0, draws.training_variance(METRIC))) if kind == "test" else deviation for draws in plain.values()]
        degrees = FOLDS - 1 if kind == "test" else np.inf
        found[kind] = {
            "interval": [
                covers(draws, spread, degrees if np.isfinite(degrees) else 1e6, value, seed)
                for draws, spread, value in zip(plain.values(), own, truth, strict=True)
            ],
            "difference": [
                entry["low"] <= value - truth[0] <= entry["high"] for entry, value in zip(differences, truth[1:], strict=True)
            ],
            "verdict": [entry["verdict"] for entry in differences],
            "smallest": differences[-1]["smallest"],
        }
    return found


def comparison_figures(
    better_by: float, *, simulations: int, techniques: int = 10, resamples: int = 500, jobs: int = JOBS
) -> dict[str, Any]:
    """Coverage, power and false verdicts on test and out of fold; the last technique is better by `better_by` in F1."""
    truth = np.full(techniques + 1, LEVEL)
    truth[-1] += better_by
    distances = np.array([distance_for(value) for value in truth])
    runs = Parallel(n_jobs=jobs)(delayed(compared_once)(truth, distances, resamples, seed) for seed in range(simulations))

    def of_kind(kind: str) -> dict[str, float]:
        level = [run[kind]["verdict"][:-1] for run in runs]
        last = [run[kind]["verdict"][-1] for run in runs]
        return {
            "coverage": float(np.mean([run[kind]["interval"] for run in runs])),
            "coverage_of_differences": float(np.mean([run[kind]["difference"] for run in runs])),
            "false_better": float(np.mean(["better" in verdicts for verdicts in level])),
            "false_worse": float(np.mean(["worse" in verdicts for verdicts in level])),
            "level_equivalent": float(np.mean([[verdict == "equivalent" for verdict in verdicts] for verdicts in level])),
            "better": float(np.mean([verdict == "better" for verdict in last])),
            "worse": float(np.mean([verdict == "worse" for verdict in last])),
            "equivalent": float(np.mean([verdict == "equivalent" for verdict in last])),
            "smallest": float(np.median([run[kind]["smallest"] for run in runs])),
        }

    return {"better_by": better_by, "test": of_kind("test"), "out_of_fold": of_kind("out_of_fold")}


def costs_of(kind: str) -> np.ndarray:
    """Multiply-adds of ten techniques: all equal, or two level ones cheaper."""
    return np.array([10.0] * 7 + ([1.0, 1.0] if kind == "two level ones are cheaper" else [10.0, 10.0]) + [10.0])


def figures(simulations: int) -> Mapping[str, Any]:
    """All figures; prints each row when it is there."""
    rows: dict[str, list[Any]] = {"safety": safety_figures(200), "comparisons": [], "selection": []}
    for better_by in (*BETTER_BY, -MARGIN):
        rows["comparisons"].append(comparison_figures(better_by, simulations=simulations))
        print(json.dumps(rows["comparisons"][-1]), flush=True)
    for kind in ("all cost the same", "two level ones are cheaper"):
        for better_by in BETTER_BY:
            found = selection_figures(better_by, costs_of(kind), simulations=200, jobs=JOBS)
            rows["selection"].append({"costs": kind, "better_by": better_by, "rules": found})
            print(json.dumps(rows["selection"][-1]), flush=True)
    return rows


def main(simulations: int) -> None:
    write_result("protocol", {"where": surroundings(), "simulations": simulations, "margin": MARGIN, **figures(simulations)})


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--simulations", type=int, default=200, help="simulated comparisons of each kind")
    main(**vars(arguments.parse_args()))
