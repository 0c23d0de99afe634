"""Measure how good the estimated performance of windows without labels is: coverage of its intervals, and error beside CBPE.

The truth is planted: labelled messages and windows come from a population with true rates of the decisions and a chosen class
prior. Two populations have made-up scores, of two and of eight classes. The third one is the text that the first training of
the baseline has not seen, if `dvc repro` has trained it here; both samples are drawn from it with replacement.

With `--peer PYTHON`, the interpreter of an environment with NannyML estimates the same windows. Without, the errors of CBPE
stay those of the last result, because the windows are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.special import softmax
from scipy.stats import binom

from ballast.monitoring.estimated_performance import (
    Estimated,
    HeldOut,
    PerformanceProtocol,
    confusion_rates,
    estimate_performance,
    on_prior,
    performance,
)
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.quantification import estimate_prior, posterior_conditionals
from benchmarks.measuring import ROOT, result_path, surroundings, write_result
from stages.store.files import read_json
from stages.store.logits import read_trainings
from stages.store.messages import read_messages
from stages.store.project import PROJECT

SHARES = (0.01, 0.05, 0.13, 0.3, 0.5)
SIZES = (500, 1000, 5000)
TRAINED = "baseline"
COMPARED = ("precision", "recall", "f1")
ERRORS = ("error", "error_of_cbpe", "error_of_all_labels", "error_of_exact_rates")
METRICS = ("precision", "recall", "f1", "share", "wrongly_assigned_per_10000")
RESAMPLES, CONFIDENCE, JOBS = 400, 0.95, 2
TWO = (0.87, 0.13)
EIGHT = (0.25, 0.2, 0.15, 0.1, 0.07, 0.06, 0.04, 0.13)
# Labelled messages, as many as the example holds out, and messages of each class for the true rates.
LABELLED, MANY = 1500, 200_000
# A share this close to the labelled one has not moved.
NEAR = 0.01
# Distance between the scores of two classes, in standard deviations.
DISTANCE = 2.6


@dataclass(frozen=True, kw_only=True)
class Population:
    """A population of messages.

    prior : (K,) of the labelled messages. The last class is the rare one, whose share changes.
    rates : (K, K) of the decisions given the true class.
    draw : messages with their true classes, from the number of each class (K,).
    """

    name: str
    prior: np.ndarray
    labelled: int
    rates: np.ndarray
    draw: Callable[[np.ndarray, np.random.Generator], HeldOut]

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [f"class {at}" for at in range(len(self.prior))]

    def shifted(self, share: float) -> np.ndarray:
        """The prior (K,) with a share of the rare class; the others keep their proportions."""
        return np.append((1 - share) * self.prior[:-1] / self.prior[:-1].sum(), share)


def made_up(prior: Sequence[float]) -> Population:
    """A population with normal scores and the exact posteriors of a model on its prior."""
    trained = np.array(prior)

    def draw(counts: np.ndarray, rng: np.random.Generator) -> HeldOut:
        classes = np.repeat(np.arange(len(trained)), counts)
        scores = rng.normal(size=(len(classes), len(trained))) + DISTANCE * np.eye(len(trained))[classes]
        posteriors = softmax(DISTANCE * scores + np.log(trained), axis=1)
        return HeldOut(
            posteriors=posteriors, decisions=posteriors.argmax(axis=1), classes=classes, groups=np.arange(len(classes))
        )

    many = draw(np.full(len(trained), MANY), np.random.default_rng(0))
    rates = confusion_rates(many.classes, many.decisions, len(trained))
    return Population(name=f"{len(trained)} classes", prior=trained, labelled=LABELLED, rates=rates, draw=draw)


def held_out_text() -> Population:
    """The messages of validation and test that the first training of the baseline has scored and not seen."""
    messages = read_messages([])
    scores = read_trainings(TRAINED, [0], messages)[0].scores
    posteriors = softmax(np.concatenate([scores.validation, scores.test]).astype(np.float64), axis=1)
    classes = np.concatenate([rows["class"] for rows in (messages.validation(0), messages.test())])
    counts = np.bincount(classes)
    # The rare class last.
    order = np.argsort(-counts)
    posteriors, classes, counts = posteriors[:, order], np.argsort(order)[classes], counts[order]
    decisions = posteriors.argmax(axis=1)
    rows_of = [np.flatnonzero(classes == label) for label in range(len(counts))]

    def draw(wanted: np.ndarray, rng: np.random.Generator) -> HeldOut:
        rows = np.concatenate([rng.choice(own, count) for own, count in zip(rows_of, wanted, strict=True)])
        return HeldOut(
            posteriors=posteriors[rows], decisions=decisions[rows], classes=classes[rows], groups=np.arange(len(rows))
        )

    rates = confusion_rates(classes, decisions, len(counts))
    return Population(name=f"text, {TRAINED}", prior=counts / counts.sum(), labelled=int(counts.sum()), rates=rates, draw=draw)


def drawn(population: Population, share: float, size: int, seed: int) -> tuple[HeldOut, HeldOut]:
    """Labelled messages, and a window."""
    rng = np.random.default_rng([seed, size, round(1000 * share), len(population.prior)])
    held_out = population.draw(rng.multinomial(population.labelled, population.prior), rng)
    return held_out, population.draw(rng.multinomial(size, population.shifted(share)), rng)


def estimated(population: Population, share: float, size: int, seed: int) -> dict[str, dict[str, Estimated]]:
    """The estimate of a window, as the watch makes it, and two that know more.

    all_labels : what all labels of the window show. exact_rates : with the true rates and the window's numbers of each class.
    """
    held_out, messages = drawn(population, share, size, seed)
    window = ScoredMessages(posteriors=messages.posteriors, groups=messages.groups, descriptors={})
    conditionals = posterior_conditionals(held_out.posteriors, held_out.classes, held_out.groups)
    prior = estimate_prior(window.posteriors, window.groups, conditionals, confidence=CONFIDENCE).prior
    protocol = PerformanceProtocol(names=population.names, costs=None, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed)
    count = len(population.prior)
    shares = np.bincount(messages.classes, minlength=count) / size
    found = {"error": estimate_performance(*on_prior(held_out, window, prior), protocol)}
    for name, rates in (
        ("all_labels", confusion_rates(messages.classes, messages.decisions, count)),
        ("exact_rates", population.rates),
    ):
        values = performance(shares[None], rates[None], population.names)
        found[name] = {metric: Estimated(value=value, low=value, high=value) for metric, (value,) in values.items()}
    return found


def arrays_of(population: Population, share: float, size: int, draws: int) -> dict[str, np.ndarray]:
    """The first windows and their labelled messages, as `benchmarks/cbpe.py` reads them: the rare class against the rest."""
    rare = len(population.prior) - 1
    pairs = [drawn(population, share, size, seed) for seed in range(draws)]
    arrays = {
        "held_out": [held_out.posteriors[:, rare] for held_out, _ in pairs],
        "held_out_decided": [held_out.decisions == rare for held_out, _ in pairs],
        "truth": [held_out.classes == rare for held_out, _ in pairs],
        "window": [window.posteriors[:, rare] for _, window in pairs],
        "window_decided": [window.decisions == rare for _, window in pairs],
    }
    return {
        name: np.array(values, dtype=np.float64 if values[0].dtype == float else np.int64) for name, values in arrays.items()
    }


def by_peer(
    population: Population, cells: Sequence[tuple[float, int]], draws: int, python: str
) -> list[dict[str, list[float]]]:
    """CBPE's estimates for the rare class in the first windows of each cell: metric -> values (draws,)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{at}.npz" for at in range(len(cells))]
        for path, (share, size) in zip(paths, cells, strict=True):
            np.savez(path, **arrays_of(population, share, size, draws))
        command = [python, str(ROOT / "benchmarks/cbpe.py"), *paths]
        # NannyML reports its use to its makers unless this is set.
        environment = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def cell(population: Population, share: float, size: int, draws: int, peers: Mapping[str, list[float]]) -> dict[str, Any]:
    """Coverage and errors of the metrics in windows of one size and share of the rare class.

    peers : CBPE's estimates in the first windows by metric.
    coverage : of the rare class; coverage_of_all : the mean over the classes.
    error, error_of_all_labels, error_of_exact_rates : mean absolute errors, see `estimated`. error_of_cbpe is that of the first
        windows.
    """
    prior = population.shifted(share)
    truths = performance(prior[None], population.rates[None], population.names)
    found = Parallel(n_jobs=JOBS)(delayed(estimated)(population, share, size, seed) for seed in range(draws))
    rows: dict[str, Any] = {}
    for metric in METRICS:
        covered = [
            np.mean(
                [
                    draw[f"{name}.{metric}"].low <= truths[f"{name}.{metric}"][0] <= draw[f"{name}.{metric}"].high
                    for draw in (of_window["error"] for of_window in found)
                ]
            )
            for name in population.names
        ]
        of_rare = f"{population.names[-1]}.{metric}"
        truth = float(truths[of_rare][0])
        rows[metric] = {"truth": truth, "coverage": float(covered[-1]), "coverage_of_all": float(np.mean(covered))}
        if metric in COMPARED:
            for name in found[0]:
                errors = np.abs([draw[name][of_rare].value - truth for draw in found])
                rows[metric]["error" if name == "error" else f"error_of_{name}"] = float(errors.mean())
        if metric in peers:
            rows[metric]["error_of_cbpe"] = float(np.abs(np.array(peers[metric]) - truth).mean())
    return {"population": population.name, "share": share, "n": size, "metrics": rows}


def summary(cells: Sequence[Mapping[str, Any]], population: Population) -> dict[str, Any]:
    """Coverage over all cells of a population, and the errors in the cells whose prior moved, by metric.

    If CBPE estimates some of these cells, the errors are of them.
    """
    table: dict[str, Any] = {}
    for metric in METRICS:
        rows = {(row["share"], row["n"]): row["metrics"][metric] for row in cells if row["population"] == population.name}
        coverage = [row["coverage"] for row in rows.values()]
        table[metric] = {"coverage": float(np.mean(coverage)), "lowest": min(coverage), "highest": max(coverage)}
        moved = [row for (share, _), row in rows.items() if abs(share - population.prior[-1]) > NEAR]
        compared = [row for row in moved if "error_of_cbpe" in row] or moved
        table[metric] |= {name: float(np.mean([row[name] for row in compared])) for name in ERRORS if name in compared[0]}
    return table


def main(draws: int, peer: str | None, peer_draws: int) -> None:
    trained = (PROJECT.logits / TRAINED / "0.npz").is_file()
    populations = [*([held_out_text()] if trained else []), made_up(TWO), made_up(EIGHT)]
    path = result_path("estimated_performance")
    before = read_json(path) if peer is None and path.is_file() else {}
    kept = {(row["population"], row["share"], row["n"]): row["metrics"] for row in before.get("cells", [])}
    result: dict[str, Any] = {
        "where": surroundings(),
        "draws": draws,
        "peer_draws": min(peer_draws, draws) if peer else before.get("peer_draws", 0),
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        # By chance alone, one of 1,000 cells lies outside.
        "chance": [float(end) / draws for end in binom.ppf([0.0005, 0.9995], draws, CONFIDENCE)],
        "steady": {population.name: float(population.prior[-1]) for population in populations},
        "labelled": {population.name: int(population.labelled) for population in populations},
        "summary": {},
        "cells": [],
    }
    cells = [(share, size) for share in SHARES for size in SIZES]
    for population in populations:
        peers = [{}] * len(cells) if peer is None else by_peer(population, cells, min(peer_draws, draws), peer)
        for (share, size), of_peer in zip(cells, peers, strict=True):
            row = cell(population, share, size, draws, of_peer)
            for metric, earlier in kept.get((population.name, share, size), {}).items():
                row["metrics"][metric] |= {key: earlier[key] for key in ("error_of_cbpe",) if key in earlier}
            result["cells"].append(row)
            result["summary"][population.name] = summary(result["cells"], population)
            print(json.dumps(result["cells"][-1]), flush=True)
            write_result("estimated_performance", result)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--draws", type=int, default=200, help="simulations of each cell")
    arguments.add_argument("--peer", metavar="PYTHON", help="the interpreter of an environment with NannyML and statsmodels")
    arguments.add_argument("--peer-draws", type=int, default=20, help="windows of each cell that CBPE estimates too")
    main(**vars(arguments.parse_args()))
