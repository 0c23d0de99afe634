"""Measure how often the watch is wrong: false alarms, power, interval coverage. Peers: Evidently's default test, counting.

Messages that the deployed model was not trained on stand for all traffic. Each simulation draws labelled messages, as many as
validation has, and a window, both with replacement, so that the true class prior is known. It needs a deployed model.
"""

from __future__ import annotations

import argparse
import inspect
import json
import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from safetensors.numpy import load_file
from scipy.stats import binom, binomtest

from ballast.data.descriptors import NAMES, descriptors
from ballast.monitoring.decision import Feedback, Policy, assess_window
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.quantification import classify_and_count, estimate_prior, posterior_conditionals
from benchmarks.measuring import surroundings, write_result
from stages.production.deployed import VOCABULARY, Version, current_version, indices, read_version
from stages.production.reference import by_deployed_model, read_held_out, read_reference
from stages.production.watch_results import policy_of
from stages.store.params import read_params

STEADY = 0.134
SIZES = (500, 1000, 5000)
PRIORS = (0.05, 0.1, 0.134, 0.2, 0.4, 0.6, 0.8, 0.9)
SHIFTS = ((0.2, 1000), (0.08, 2000))
BOOTSTRAP = 200
# Fewer for Evidently, which takes 0.1 s a window.
EVIDENTLY_WINDOWS = 300
JOBS = 2
# The documentation of these standard modules is another kind of text than the messages.
MODULES = ("argparse", "asyncio", "collections", "csv", "datetime", "email", "http.client", "json", "logging", "os", "pathlib")
MODULES += (
    "random",
    "shutil",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "threading",
    "unittest",
    "zipfile",
)


class Population:
    """The messages to draw from, as the model sees them, with their classes (n,): 1 is the rare class."""

    def __init__(self, version: Version) -> None:
        reference = read_reference(version)
        self.scored, self.classes, self.labels = reference.messages, reference.classes, version.labels
        self.rare = int(version.production_prior.argmin())
        rows = by_deployed_model(version, read_held_out(version))
        # An ensemble has scored no message of validation without having seen it.
        validation = rows[rows["split"] == "validation"] if (rows["split"] == "validation").any() else rows
        self.labelled = np.bincount(indices(validation["label"], self.labels), minlength=len(self.labels))
        self.rows = [np.flatnonzero(self.classes == label) for label in range(len(self.labels))]

    def prior(self, share: float) -> np.ndarray:
        """A class prior (K,) with the given share of the rare class; the other classes keep their proportions."""
        others = np.delete(self.labelled, self.rare) / np.delete(self.labelled, self.rare).sum()
        return np.insert((1 - share) * others, self.rare, share)

    def labelled_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of labelled messages, as many of each class as validation has."""
        return np.concatenate([rng.choice(rows, count) for rows, count in zip(self.rows, self.labelled, strict=True)])

    def window_rows(self, share: float, size: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of a window."""
        counts = rng.multinomial(size, self.prior(share))
        return np.concatenate([rng.choice(rows, count) for rows, count in zip(self.rows, counts, strict=True)])

    def take(self, rows: np.ndarray) -> ScoredMessages:
        """The messages of the rows, as distinct draws."""
        columns = {name: values[rows] for name, values in self.scored.descriptors.items()}
        return ScoredMessages(posteriors=self.scored.posteriors[rows], groups=np.arange(len(rows)), descriptors=columns)


def decisions(
    population: Population, share: float, size: int, policy: Policy, reference_prior: np.ndarray, seed: int
) -> dict[str, bool]:
    """Whether the watch, and an exact binomial test on the predicted classes, find windows of a share not steady."""
    rng = np.random.default_rng(seed)
    rows = population.labelled_rows(rng)
    window = population.take(population.window_rows(share, size, rng))
    verdict = assess_window(
        population.take(rows),
        population.classes[rows],
        window,
        reference_prior,
        policy,
        labels=population.labels,
        feedback=Feedback(new_labels=np.zeros(len(population.labels), dtype=int), drops=[]),
    )
    counted = round(classify_and_count(window.posteriors)[population.rare] * size)
    p = binomtest(counted, size, reference_prior[population.rare]).pvalue
    return {"watch": verdict.decision != "steady", "counting": bool(p < policy.false_alarm)}


def alarms(population: Population, share: float, size: int, policy: Policy, windows: int) -> dict[str, float]:
    """Share of windows with another decision than steady, by the share of the rare class."""
    prior = population.prior(STEADY)
    found = Parallel(n_jobs=JOBS)(delayed(decisions)(population, share, size, policy, prior, seed) for seed in range(windows))
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def evidently_alarms(population: Population, share: float, size: int, windows: int) -> float:
    """Share of windows in which Evidently's default test reports drift of the predicted class."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(categorical_columns=["called"])
    names = np.array(population.labels)

    def called(rows: np.ndarray) -> Dataset:
        return Dataset.from_pandas(
            pd.DataFrame({"called": names[population.scored.posteriors[rows].argmax(axis=1)]}), definition
        )

    drifted = []
    for seed in range(windows):
        rng = np.random.default_rng(seed)
        reference, window = called(population.labelled_rows(rng)), called(population.window_rows(share, size, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = Report([ValueDrift(column="called")], include_tests=True).run(window, reference).dict()
        drifted.append(result["tests"][0]["status"] == "FAIL")
    return float(np.mean(drifted))


def covered(population: Population, share: float, size: int, confidence: float, seed: int) -> tuple[bool, bool]:
    """Whether the intervals of the watch and of a plain bootstrap of PACC contain the true share."""
    rng = np.random.default_rng([seed, size, round(1000 * share)])
    rows, of_window = population.labelled_rows(rng), population.window_rows(share, size, rng)
    posteriors, classes = population.scored.posteriors[rows], population.classes[rows]
    window = population.scored.posteriors[of_window]
    conditionals = posterior_conditionals(posteriors, classes, np.arange(len(rows)))
    estimate = estimate_prior(window, np.arange(size), conditionals, confidence=confidence)
    rare = population.rare
    score = window[:, rare]
    means = [
        rng.choice(each, (BOOTSTRAP, len(each))).mean(axis=1)
        for each in (score, posteriors[classes != rare, rare], posteriors[classes == rare, rare])
    ]
    drawn = np.clip((means[0] - means[1]) / (means[2] - means[1]), 0, 1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return bool(estimate.low[rare] <= share <= estimate.high[rare]), bool(low <= share <= high)


def coverage(population: Population, policy: Policy, repeats: int) -> list[dict[str, float]]:
    """Coverage of the intervals for each class prior and window size."""
    table = []
    for share in PRIORS:
        for size in SIZES:
            found = Parallel(n_jobs=JOBS)(
                delayed(covered)(population, share, size, policy.confidence, seed) for seed in range(repeats)
            )
            watch, bootstrap = np.mean(found, axis=0)
            table.append({"prior": share, "n": size, "watch": float(watch), "bootstrap": float(bootstrap)})
    return table


def other_texts() -> list[str]:
    """Paragraphs of the standard library's documentation."""
    paragraphs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in MODULES:
            for _, member in inspect.getmembers(import_module(name), callable):
                text = inspect.getdoc(member) or ""
                paragraphs += [" ".join(each.split()) for each in text.split("\n\n") if len(each) > 20]
    return sorted(set(paragraphs))


def other_kind(population: Population, version: Version, policy: Policy, windows: int) -> list[dict[str, Any]]:
    """Decisions for windows with a share of another kind of text; the class prior of the rest is unchanged."""
    texts = other_texts()
    words = load_file(version.folder / VOCABULARY)["words"]
    found = descriptors(texts, words)
    posteriors = version.posteriors(version.load().logits(texts))
    table = []
    for other in (0.2, 0.5, 1.0):
        made = []
        for seed in range(windows):
            rng = np.random.default_rng(seed)
            rows = population.labelled_rows(rng)
            count = round(other * 1000)
            own = population.take(population.window_rows(STEADY, 1000 - count, rng))
            theirs = rng.choice(len(texts), count, replace=count > len(texts))
            window = ScoredMessages(
                posteriors=np.concatenate([own.posteriors, posteriors[theirs]]),
                groups=np.arange(1000),
                descriptors={name: np.concatenate([own.descriptors[name], found[name].to_numpy()[theirs]]) for name in NAMES},
            )
            none = np.zeros(len(population.labels), dtype=int)
            verdict = assess_window(
                population.take(rows),
                population.classes[rows],
                window,
                population.prior(STEADY),
                policy,
                labels=population.labels,
                feedback=Feedback(new_labels=none, drops=[]),
            )
            made.append(verdict.decision)
        table.append({"share": other, **{name: made.count(name) / windows for name in sorted(set(made))}})
    return table


def main(windows: int, repeats: int) -> None:
    version = read_version(current_version())
    population, policy = Population(version), policy_of(read_params().production)
    steady = [{"n": size, **alarms(population, STEADY, size, policy, windows)} for size in SIZES]
    power = [{"prior": share, "n": size, **alarms(population, share, size, policy, windows)} for share, size in SHIFTS]
    for row in (*steady, *power):
        row["evidently"] = evidently_alarms(population, row.get("prior", STEADY), row["n"], min(windows, EVIDENTLY_WINDOWS))
        print(json.dumps(row), flush=True)
    result = {
        "technique": version.manifest["technique"],
        "labelled": dict(zip(population.labels, population.labelled.tolist(), strict=True)),
        "population": dict(zip(population.labels, map(len, population.rows), strict=True)),
        "where": surroundings(),
        "windows": windows,
        "evidently_windows": min(windows, EVIDENTLY_WINDOWS),
        "repeats": repeats,
        "steady_prior": STEADY,
        "false_alarms": steady,
        # The 99% quantile of the number of false alarms if their rate is 1%.
        "most_false_alarms": int(binom.ppf(0.99, windows, 0.01)) / windows,
        "power": power,
        "another_kind": other_kind(population, version, policy, min(windows, 200)),
        "coverage": coverage(population, policy, repeats),
    }
    write_result("class_prior", result)
    for row in result["coverage"]:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--windows", type=int, default=2000, help="simulated windows of each kind")
    arguments.add_argument("--repeats", type=int, default=1000, help="simulations of each interval")
    main(**vars(arguments.parse_args()))
