"""Measure how often the interval of an extrapolated learning curve contains the truth, for known power laws.

Each simulation draws the errors of messages in eight folds at four training sizes. A message that is hard at one size is hard
at the others, and each training is a little better or worse than the law. The peer is the extrapolation by either law alone.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from scipy.special import ndtri

from ballast.evaluation.bootstrap import Draws, percentile_interval, seed_noise
from ballast.evaluation.out_of_fold import training_deviation
from ballast.evaluation.power_law import PowerLaws, extrapolate
from benchmarks.measuring import write_result

MESSAGES, FOLDS, RESAMPLES, CONFIDENCE = 4400, 8, 400, 0.95
SIZES = np.array([500, 1000, 2000, 4000])
# Scale, exponent and floor of the error, and the relative deviation of a training.
LAWS = [(0.02, 0.5, 0.0), (0.02, 0.3, 0.0), (0.02, 0.1, 0.0), (0.01, 0.5, 0.01), (0.01, 1.0, 0.01), (0.02, 0.0, 0.0)]
DEVIATIONS = (0.0, 0.15)
# Correlation between two sizes of how hard a message is.
CORRELATION = 0.8


def simulated_errors(scale: float, exponent: float, floor: float, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Errors (messages, sizes) of 0 or 1; message i is in fold i mod FOLDS."""
    law = scale * (SIZES / SIZES[-1]) ** -exponent + floor
    of_fold = law * np.exp(deviation * rng.normal(size=(FOLDS, len(SIZES))) - deviation**2 / 2)
    own, common = rng.normal(size=(MESSAGES, len(SIZES))), rng.normal(size=(MESSAGES, 1))
    hard = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    return (hard < ndtri(of_fold[np.arange(MESSAGES) % FOLDS])).astype(float)


def simulation(scale: float, exponent: float, floor: float, deviation: float, seed: int) -> dict[str, dict[str, float]]:
    """The gain of twice as many messages by interval: value, low, high; and the `truth`."""
    rng = np.random.default_rng(seed)
    errors = simulated_errors(scale, exponent, floor, deviation, rng)
    counts = rng.multinomial(MESSAGES, np.full(MESSAGES, 1 / MESSAGES), size=RESAMPLES)
    means = np.stack([errors[fold::FOLDS].mean(axis=0) for fold in range(FOLDS)])
    draws = counts @ errors / MESSAGES
    for size in range(len(SIZES)):
        of_size = Draws(values={"error": draws[:, size]}, seeds={"error": means[:, size]}, correct=np.ones((1, 1), dtype=bool))
        draws[:, size] += seed_noise(training_deviation(of_size, "error"), FOLDS, RESAMPLES, rng, FOLDS - 1)
    point, found = errors.mean(axis=0), extrapolate(SIZES, errors.mean(axis=0), draws)
    truth = PowerLaws(scale=np.array([scale]), exponent=np.array([exponent]), floor=np.array([floor]))
    result = {"truth": dict.fromkeys(("value", "low", "high"), float(truth.at(1.0)[0] - truth.at(2.0)[0]))}
    result["both"] = found.gain(float(point[-1]), draws[:, -1], CONFIDENCE)
    for name, share in (("with_floor", found.with_floor), ("without_floor", found.without_floor)):
        low, high = percentile_interval(share * draws[:, -1], CONFIDENCE)
        result[name] = {"value": found.value * float(point[-1]), "low": low, "high": high}
    return result


def coverage(law: tuple[float, float, float], deviation: float, simulations: int) -> dict[str, Any]:
    """How often each interval contains the true gain, and the mean width of the interval that is used."""
    found = [simulation(*law, deviation, seed) for seed in range(simulations)]
    truth = found[0]["truth"]["value"]
    contains = {
        name: float(np.mean([result[name]["low"] <= truth <= result[name]["high"] for result in found]))
        for name in ("both", "with_floor", "without_floor")
    }
    return {
        **dict(zip(("scale", "exponent", "floor"), law, strict=True)),
        "deviation": deviation,
        "gain": truth,
        "mean_gain": float(np.mean([result["both"]["value"] for result in found])),
        "mean_width": float(np.mean([result["both"]["high"] - result["both"]["low"] for result in found])),
        "coverage": contains,
    }


def main(simulations: int) -> None:
    table = [coverage(law, deviation, simulations) for law in LAWS for deviation in DEVIATIONS]
    settings = {"messages": MESSAGES, "folds": FOLDS, "sizes": SIZES.tolist(), "confidence": CONFIDENCE}
    write_result("power_law", {**settings, "simulations": simulations, "laws": table})
    for row in table:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--simulations", type=int, default=200, help="simulations of each law")
    main(**vars(arguments.parse_args()))
