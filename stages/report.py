"""Write the report: `reports/index.html` and the two Evidently pages.

Reads the results of all stages before it and the saved logits; computes nothing anew but curves of raw posteriors, the
worst mistakes and the test of the test set against the production prior.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.command import parser, run
from ballast.evaluation import calibration_curve
from ballast.expected_shares import count_bounds
from ballast.priors import correct
from stages.evaluate import seed_scores
from stages.evidently_pages import drift_page, techniques_page
from stages.files import (
    CLAIMS,
    EVALUATIONS,
    INGEST,
    LEADERBOARD,
    PROBE_TABLE,
    REPORTS,
    SELECTED,
    VALIDATION,
    read_json,
    replaced,
)
from stages.messages import Messages, read_messages
from stages.params import read_params
from stages.report_page.view import Results, page
from stages.studies import study_results

MISTAKES = 12
# A longer message would make the table of mistakes unreadable.
SHOWN_CHARACTERS = 300


def raw_calibration(logits: np.ndarray, classes: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Calibration curve of each label from raw logits (n, K) and classes (n,)."""
    posterior = softmax(logits.astype(np.float64), axis=1)
    return {label: calibration_curve(posterior[:, at], classes == at) for at, label in enumerate(labels)}


def worst_mistakes(posterior: np.ndarray, rows: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """The test messages that are called wrong with the most confidence: posterior (n, K), rows with text and class."""
    predicted = posterior.argmax(axis=1)
    confidence = posterior.max(axis=1)
    wrong = np.flatnonzero(predicted != rows["class"].to_numpy())
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    texts = rows["text"].to_numpy()
    return [
        {
            "text": texts[row] if len(texts[row]) <= SHOWN_CHARACTERS else f"{texts[row][:SHOWN_CHARACTERS]}…",
            "label": labels[rows["class"].iloc[row]],
            "predicted": labels[predicted[row]],
            "probability": float(confidence[row]),
        }
        for row in worst
    ]


def with_shares(classes: np.ndarray, shares: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the largest sample without replacement, of at most `most`, whose classes (n,) have the shares (K,).

    No row is drawn twice, so the sample is as informative as its size says.
    """
    available = np.bincount(classes, minlength=len(shares))
    size = min(float(most), float((available / shares).min()))
    wanted = np.clip(np.round(size * shares).astype(int), 1, available)
    drawn = [rng.choice(np.flatnonzero(classes == at), count, replace=False) for at, count in enumerate(wanted)]
    rows: np.ndarray = np.sort(np.concatenate(drawn))
    return rows


def columns_of(logits: np.ndarray, classes: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Class, called class and probabilities of some rows of corrected logits (n, K)."""
    chosen = logits[rows]
    return {"classes": classes[rows], "predicted": chosen.argmax(axis=1), "probability": softmax(chosen, axis=1)}


class Corrected:
    """Saved logits by technique and seed, on the production prior."""

    def __init__(self, evaluations: dict[str, Any], labels: list[str], production: np.ndarray) -> None:
        self.evaluations, self.labels, self.production = evaluations, labels, production

    def logits(self, name: str, seed: int, split: str) -> np.ndarray:
        """Corrected logits (n, K) of `validation` or `test`."""
        effective = self.evaluations[name]["seeds"][str(seed)]["effective_prior"]
        scores, _ = seed_scores(name, seed)
        logits = scores.validation if split == "validation" else scores.test
        return correct(logits.astype(np.float64), np.array([effective[label] for label in self.labels]), self.production)


def evidently_pages(results: Results, corrected: Corrected, messages: Messages) -> dict[str, str]:
    """The Evidently pages by file name; a large test set is sampled."""
    labels, seed = results.labels, results.params.train.seeds[0]
    rng = np.random.default_rng(0)
    classes = {split: messages.of(split)["class"].to_numpy() for split in ("validation", "test")}
    most = results.params.report.sample
    count = len(classes["test"])
    rows = np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
    predicted = {name: corrected.logits(name, seed, "test")[rows].argmax(axis=1) for name in results.names}
    chosen, chosen_seed = results.selected["technique"], results.selected["seed"]
    drawn = with_shares(classes["validation"], corrected.production, most, rng)
    return {
        "evidently_techniques.html": techniques_page(labels, classes["test"][rows], predicted, labels.index(results.rarest)),
        "evidently_drift.html": drift_page(
            labels,
            current=columns_of(corrected.logits(chosen, chosen_seed, "test"), classes["test"], rows),
            reference=columns_of(corrected.logits(chosen, chosen_seed, "validation"), classes["validation"], drawn),
            technique=chosen,
            threshold=results.params.validate_.false_alarm,
        ),
    }


def read_results(messages: Messages) -> tuple[Results, Corrected]:
    """Everything that the earlier stages found, and the logits behind it."""
    params = read_params()
    board = read_json(LEADERBOARD)
    labels, names = board["labels"], list(params.techniques)
    evaluations = {name: read_json(EVALUATIONS / f"{name}.json") for name in names}
    production = np.array([board["production_prior"][label] for label in labels])
    corrected = Corrected(evaluations, labels, production)
    selected = read_json(SELECTED / "model.json")
    test = messages.of("test")
    classes = test["class"].to_numpy()
    posterior = softmax(corrected.logits(selected["technique"], selected["seed"], "test"), axis=1)
    called = np.bincount(posterior.argmax(axis=1), minlength=len(labels))
    bounds = zip(*count_bounds(production, len(test), params.validate_.false_alarm), strict=True)
    first = params.train.seeds[0]
    results = Results(
        params=params,
        ingest=read_json(INGEST),
        validation=read_json(VALIDATION),
        board=board,
        evaluations=evaluations,
        claims=read_json(CLAIMS),
        studies=study_results(),
        calibration={name: raw_calibration(seed_scores(name, first)[0].test, classes, labels) for name in names},
        # Texts such as "NA" are texts.
        probe=pd.read_csv(PROBE_TABLE, dtype={"technique": str, "text": str, "label": str}, keep_default_na=False),
        selected=selected,
        mistakes=worst_mistakes(posterior, test, labels),
        called=dict(zip(labels, called.tolist(), strict=True)),
        bounds={label: (int(low), int(high)) for label, (low, high) in zip(labels, bounds, strict=True)},
    )
    return results, corrected


def main() -> None:
    messages = read_messages(["text"])
    results, corrected = read_results(messages)
    for name, content in {"index.html": page(results), **evidently_pages(results, corrected, messages)}.items():
        with replaced(REPORTS / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(f"report: {REPORTS / 'index.html'}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
