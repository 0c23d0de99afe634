"""Measure the labelling queue: its estimates when the truth is known, and the members of a rare class that it finds.

The first part draws windows of scores and labels the queue of each, or as many messages at random. It measures the bias of
precision and recall, the coverage of their 95% intervals and the width of these. Scores are calibrated, or hide some mistakes:
the model is certain of them, as real ones are. Held-out messages show how many there are, as they do to the watch.

The second part streams two public data sets through a linear model in windows. Of each window, 100 messages are labelled: those
of the queue, random ones, or those that the model is least certain about. The model is then retrained with all labels so far.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from ballast.models.tfidf import fit_tfidf
from ballast.monitoring.estimated_performance import Estimated
from ballast.monitoring.labelled_quality import LabelledSample, labelled_quality, with_held_out_mistakes
from ballast.monitoring.labelling_queue import Scores, Wanted, draw_queue
from ballast.monitoring.similarity import largest_similarity
from benchmarks.measuring import surroundings, write_result
from stages.store.groups import groups_of

JOBS, HELD_OUT = 2, 4000
CONFIDENCE, BUDGET = 0.95, 50
# The streams have labels at the start and of each window, windows, and messages of a window and of the test set.
START, PER_WINDOW, WINDOWS, WINDOW, TEST = 300, 100, 5, 1500, 3000
STREAMS = {"hate_speech": "hate", "clinc_out_of_scope": "out_of_scope"}
SAMPLERS = ("queue", "random", "uncertainty")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Windows to draw: their number and messages, the share of the rare class, and the distance of the class means.

    certain : share of messages that belong to the other class than their score says.
    """

    windows: int
    messages: int
    share: float
    distance: float
    repeats: int
    certain: float = 0.0


SETTINGS = {
    "13%": Setting(windows=4, messages=1000, share=0.13, distance=4.0, repeats=600),
    "13%, certain mistakes": Setting(windows=4, messages=1000, share=0.13, distance=4.0, repeats=600, certain=0.005),
    "1:100": Setting(windows=20, messages=2000, share=0.01, distance=4.0, repeats=200),
    "1:100, certain mistakes": Setting(windows=20, messages=2000, share=0.01, distance=4.0, repeats=200, certain=0.001),
    "1:1000": Setting(windows=40, messages=5000, share=0.001, distance=5.0, repeats=60),
}


def draw_messages(setting: Setting, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n,) and posteriors (n, 2) of messages."""
    classes = (rng.random(count) < setting.share).astype(np.int64)
    at = rng.normal(size=count) + setting.distance * classes
    classes = np.where(rng.random(count) < setting.certain, 1 - classes, classes)
    log_odds = setting.distance * (at - setting.distance / 2) + np.log(setting.share / (1 - setting.share))
    rare = 1 / (1 + np.exp(-log_odds))
    return classes, np.column_stack([1 - rare, rare])


def draw_windows(setting: Setting, rng: np.random.Generator) -> list[tuple[np.ndarray, Scores]]:
    """The classes (n,) of each window, and its scores as the watch gives them to the queue."""
    held_out, of_held_out = draw_messages(setting, HELD_OUT, rng)
    prior = np.bincount(held_out, minlength=2) / HELD_OUT
    windows = []
    for _ in range(setting.windows):
        classes, posteriors = draw_messages(setting, setting.messages, rng)
        predicted = posteriors.argmax(axis=1)
        raised = with_held_out_mistakes(
            posteriors, predicted, prior, classes=held_out, decisions=of_held_out.argmax(axis=1), held_out=of_held_out
        )
        windows.append((classes, Scores(posteriors=raised, predicted=predicted, groups=np.arange(len(classes)), common=0)))
    return windows


def queued(scores: Scores, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The queue of a window: rows, inclusion, sizes and strata."""
    return vars(draw_queue(scores, Wanted(budget=BUDGET, random=0.2, neighbours=0.0), int(rng.integers(1 << 31))))


def at_random(scores: Scores, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As many messages, all with the same probability."""
    n = len(scores.groups)
    even = np.full(BUDGET, BUDGET / n)
    return {"rows": rng.permutation(n)[:BUDGET], "inclusion": even, "sizes": np.ones(BUDGET), "strata": np.full(BUDGET, "all")}


def redraw(setting: Setting, seed: int) -> dict[str, list[float]]:
    """Truth, estimate and interval of precision and recall, by the queue and at random; not a number without an estimate."""
    rng = np.random.default_rng([seed, setting.messages])
    windows = draw_windows(setting, rng)
    classes, predicted = (np.concatenate(part) for part in zip(*((y, s.predicted) for y, s in windows), strict=True))
    hits = float((classes & predicted).sum())
    truth = {"precision": hits / max(1, predicted.sum()), "recall": hits / max(1, classes.sum())}
    found = {}
    for name, choose in (("queue", queued), ("random", at_random)):
        parts = []
        for of_window, scores in windows:
            chosen = choose(scores, rng)
            rows = chosen.pop("rows")
            parts.append(
                {
                    **chosen,
                    "classes": of_window[rows],
                    "predicted": scores.predicted[rows],
                    "posteriors": scores.posteriors[rows],
                }
            )
        sample = LabelledSample(**{key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
        quality = labelled_quality(sample, confidence=CONFIDENCE, draws=2000)[1]
        for metric, true in truth.items():
            estimate: Estimated = getattr(quality, metric) or Estimated(value=float("nan"), low=0.0, high=1.0)
            found[f"{name}.{metric}"] = [true, estimate.value, estimate.low, estimate.high]
    return found


def summary(setting: Setting) -> dict[str, Any]:
    """Bias relative to the truth with its standard error, coverage and mean width, for each metric and way to choose."""
    drawn = Parallel(n_jobs=JOBS)(delayed(redraw)(setting, seed) for seed in range(setting.repeats))
    table: dict[str, Any] = {"labels": setting.windows * BUDGET, **vars(setting)}
    for name in drawn[0]:
        true, value, low, high = np.array([repetition[name] for repetition in drawn]).T
        known = np.isfinite(value)
        error = (value - true)[known] / true.mean()
        table[name] = {
            "truth": float(true.mean()),
            "bias": float(error.mean()),
            "bias_standard_error": float(error.std() / np.sqrt(known.sum())),
            "coverage": float(((low <= true + 1e-9) & (true <= high + 1e-9)).mean()),
            "width": float((high - low).mean()),
            "without_estimate": float(1 - known.mean()),
        }
    table["width_of_recall_against_random"] = table["queue.recall"]["width"] / table["random.recall"]["width"]
    return table


def by_queue(texts: list[str], rare: np.ndarray, members: list[str], rng: np.random.Generator) -> np.ndarray:
    """The rows of a window that the queue chooses."""
    posteriors = np.column_stack([1 - rare, rare])
    scores = Scores(posteriors=posteriors, predicted=(rare > 0.5).astype(np.int64), groups=groups_of(texts), common=0)
    similarity = largest_similarity(texts, members, rare)
    wanted = Wanted(budget=PER_WINDOW, random=0.2, neighbours=0.2)
    return draw_queue(scores, wanted, int(rng.integers(1 << 31)), similarity=similarity).rows


CHOICES: dict[str, Callable[[list[str], np.ndarray, list[str], np.random.Generator], np.ndarray]] = {
    "queue": by_queue,
    "random": lambda texts, rare, members, rng: rng.permutation(len(texts))[:PER_WINDOW],
    "uncertainty": lambda texts, rare, members, rng: np.argsort(np.abs(rare - 0.5), kind="stable")[:PER_WINDOW],
}


def stream(table: pd.DataFrame, sampler: str, seed: int) -> dict[str, list[float]]:
    """Members of the rare class among the labels, and average precision on test, at the start and after each window."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table))[: TEST + START + WINDOWS * WINDOW]
    texts, classes = table["text"].to_numpy()[order], table["rare"].to_numpy()[order]
    labelled = np.arange(TEST, TEST + START)
    found: list[float] = []
    precision: list[float] = []
    for window in range(WINDOWS + 1):
        model = fit_tfidf(list(texts[labelled]), classes[labelled], np.ones(len(labelled)), ["other", "rare"], 10.0)
        scores = model.predict_proba(list(texts[:TEST]))[:, 1]
        precision.append(float(average_precision_score(classes[:TEST], scores)))
        found.append(int(classes[labelled].sum()))
        if window < WINDOWS:
            rows = np.arange(TEST + START + window * WINDOW, TEST + START + (window + 1) * WINDOW)
            own = list(texts[rows])
            members = list(texts[labelled[classes[labelled] == 1]])
            chosen = CHOICES[sampler](own, model.predict_proba(own)[:, 1], members, rng)
            labelled = np.concatenate([labelled, rows[chosen]])
    return {"found": found, "average_precision": precision}


def learning(folder: Path, repeats: int) -> dict[str, Any]:
    """The mean over repeats of the learning curves of each data set and sampler, with standard deviations."""
    result: dict[str, Any] = {}
    for name, rare in STREAMS.items():
        table = pd.read_csv(folder / f"{name}.csv")
        table = table[["text"]].assign(rare=(table["label"] == rare).astype(np.int64))
        if name == "clinc_out_of_scope":
            # The published test split has far more of the rare class; this is the share of train.
            members = table[table["rare"] == 1].sample(frac=0.15, random_state=0)
            table = pd.concat([table[table["rare"] == 0], members], ignore_index=True)
        of_set: dict[str, Any] = {"share": float(table["rare"].mean())}
        for sampler in SAMPLERS:
            runs = [stream(table, sampler, seed) for seed in tqdm(range(repeats), desc=f"{name} {sampler}")]
            found = np.array([run["found"] for run in runs], dtype=float)
            per_100 = (found[:, -1] - found[:, 0]) / WINDOWS * 100 / PER_WINDOW
            precision = np.array([run["average_precision"] for run in runs])
            of_set[sampler] = {
                "found_per_100_labels": float(per_100.mean()),
                "found_per_100_labels_deviation": float(per_100.std(ddof=1)),
                "average_precision": precision.mean(axis=0).tolist(),
                "average_precision_deviation": precision.std(axis=0, ddof=1).tolist(),
            }
        result[name] = of_set
    return result


def main(data: Path, repeats: int) -> None:
    result: dict[str, Any] = {"where": surroundings(), "confidence": CONFIDENCE, "budget": BUDGET, "settings": {}}
    for name, setting in SETTINGS.items():
        result["settings"][name] = summary(setting)
        print(json.dumps({name: result["settings"][name]}), flush=True)
    result["streams"] = {
        "labels_at_start": START,
        "labels_of_window": PER_WINDOW,
        "messages_of_window": WINDOW,
        "repeats": repeats,
        **learning(data, repeats),
    }
    print(json.dumps(result["streams"]), flush=True)
    write_result("labelling", result)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the csv files of the streams")
    arguments.add_argument("--repeats", type=int, default=6, help="random streams of each data set")
    main(**vars(arguments.parse_args()))
