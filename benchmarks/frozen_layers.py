"""Measure how many layers to freeze, on several data sets, by out-of-fold scores; writes frozen_layers.json.

Run `python -m benchmarks.frozen_layers`. It reads the data sets of `studies/datasets` that are in `data/raw/`. For each number
of frozen layers, seed 0 chooses the learning rate by log loss on its validation fold; the other seeds train with that rate.
Nothing reads the test set. Finished trainings are skipped, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import average_precision_score, f1_score

from ballast.evaluation.log_loss import log_losses
from ballast.technique import Technique, TrainingSettings
from ballast.training.fine_tune import fine_tune
from benchmarks.measuring import ROOT, read_result, surroundings, write_result
from stages.store.across_data_sets import content_of, read_settings, with_place
from stages.store.baseline_data import baseline_data
from stages.store.frozen_states import cached_states
from stages.store.messages import Messages, read_messages
from stages.store.params import Params
from stages.store.project import Project
from stages.study.data_set import prepare
from stages.study.datasets import location_of

NAME = "frozen_layers"
DATA_SETS = ("trec", "banking77", "sms_spam", "hate_speech")
SEEDS = (0, 1, 2)
# The learning rates for each number of frozen layers, and the one to start with.
RATES = {
    5: (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    3: (5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
    0: (2e-5, 5e-5, 1e-4, 2e-4, 4e-4),
}
START = {5: 5e-4, 3: 2e-4, 0: 1e-4}

MEASURED = ("macro_f1", "rare_f1", "rare_pr_auc", "log_loss", "processor_seconds")

Run = dict[str, Any]


def measure(messages: Messages, params: Params, layers: int, rate: float, seed: int) -> Run:
    """Train the baseline once and measure it on the validation fold of its seed."""
    train, validation = messages.train(seed), messages.validation(seed)
    data = baseline_data(messages, train)
    section = {**params.train.settings(), "frozen_layers": layers, "learning_rate": rate}
    started = time.process_time()
    settings = TrainingSettings(**section, seed=seed, cache=partial(cached_states, ROOT / "data/states"))
    model = fine_tune(Technique(), data, settings)
    seconds = time.process_time() - started
    logits, classes = model.logits(validation["text"].tolist()).astype(float), validation["class"].to_numpy()
    rare = int(np.argmin(messages.counts(train)))
    return {
        "frozen_layers": layers,
        "learning_rate": rate,
        "seed": seed,
        "messages": len(train),
        "classes": len(messages.names),
        "tokens": round(float(np.mean([len(text.split()) for text in data.texts])), 1),
        "macro_f1": float(f1_score(classes, logits.argmax(axis=1), average="macro", zero_division=0)),
        "rare_f1": float(f1_score(classes == rare, logits.argmax(axis=1) == rare, zero_division=0)),
        "rare_pr_auc": float(average_precision_score(classes == rare, softmax(logits, axis=1)[:, rare])),
        "log_loss": float(log_losses(logits, classes).mean()),
        "processor_seconds": round(seconds, 1),
    }


def chosen_rate(runs: list[Run], layers: int) -> float:
    """The learning rate with the smallest log loss on the validation fold of the first seed."""
    losses = losses_of(runs, layers)
    return min(losses, key=lambda rate: losses[rate])


def next_rate(losses: Mapping[float, float], layers: int) -> float | None:
    """The next learning rate to try: a neighbour of the best one so far; None if both neighbours are worse."""
    if not losses:
        return START[layers]
    rates = RATES[layers]
    at = rates.index(min(losses, key=lambda rate: losses[rate]))
    return next((rate for rate in (*rates[at + 1 : at + 2], *rates[max(0, at - 1) : at]) if rate not in losses), None)


def to_do(runs: list[Run], layers: int, seed: int) -> Iterator[float]:
    """The learning rates with which a seed still has to train. `runs` grows in the meantime."""
    if seed == SEEDS[0]:
        while (rate := next_rate(losses_of(runs, layers), layers)) is not None:
            yield rate
    elif not any(run["frozen_layers"] == layers and run["seed"] == seed for run in runs):
        yield chosen_rate(runs, layers)


def losses_of(runs: list[Run], layers: int) -> dict[float, float]:
    """The log loss of each learning rate on the validation fold of the first seed."""
    return {run["learning_rate"]: run["log_loss"] for run in runs if run["frozen_layers"] == layers and run["seed"] == SEEDS[0]}


def messages_of(name: str) -> tuple[Messages, Params]:
    """The messages of a data set, ingested as the benchmark across data sets does, and its params."""
    settings = read_settings()
    location = location_of(name, settings.data_sets[name])
    content, params = with_place(content_of(settings, name), location.ingest, name)
    folder = Path("studies/datasets/variants") / f"layers_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, content)
    return read_messages(["text"], Project(folder)), params


def summary(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Means over the seeds for each number of frozen layers that all seeds trained with, with the chosen learning rate."""
    found = {}
    for layers in RATES:
        of_layers = [run for run in runs if run["frozen_layers"] == layers]
        if {run["seed"] for run in of_layers} == set(SEEDS):
            rate = chosen_rate(runs, layers)
            own = [run for run in of_layers if run["learning_rate"] == rate]
            means = {key: float(np.mean([run[key] for run in own])) for key in MEASURED}
            found[str(layers)] = {"learning_rate": rate, "seeds": len(own), **means}
    return found


def write(result: dict[str, Any]) -> None:
    """Write all runs and the means over the seeds."""
    made = {"command": f"python -m benchmarks.{NAME}"}
    write_result(NAME, result | made | {"summary": {name: summary(runs) for name, runs in result["data_sets"].items()}})


def main(names: list[str], layers: list[int]) -> None:
    result: dict[str, Any] = {"data_sets": {}} | read_result(NAME) | surroundings()
    ingested = {name: messages_of(name) for name in names}
    for frozen, seed, name in product(layers, SEEDS, names):
        messages, params = ingested[name]
        runs: list[Run] = result["data_sets"].setdefault(name, [])
        for rate in to_do(runs, frozen, seed):
            runs.append(measure(messages, params, frozen, rate, seed))
            print(f"{name}: {runs[-1]}", file=sys.stderr, flush=True)
            write(result)
    write(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(DATA_SETS), help="data sets (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", choices=RATES, default=list(RATES), help="numbers of frozen layers")
    arguments = parser.parse_args()
    main(arguments.names, arguments.layers)
