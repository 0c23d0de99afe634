"""Find the errors of each technique on test, the errors common to all, suspected label errors, and difficult slices.

Reads the saved logits, their evaluations and the messages; writes `reports/errors.json`, which names messages by their row in
`data/messages.parquet` and their id. It holds no texts: the report looks them up, unless `report.show_texts` is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.cli import parser
from ballast.evaluation.error_analysis import (
    MINIMUM_IN_SLICE,
    beats_majority,
    most_confident_errors,
    nearest_neighbours,
    slice_metrics,
    slices,
    suspected_label_errors,
)
from ballast.evaluation.priors import correct_prior
from stages.store.files import read_json, write_json
from stages.store.logits import Corrected
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.running import run

NEIGHBOURS = 3
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one technique on test: the classes by seed (S, n), and mean posteriors (n, K) over the seeds.

    posterior : on the production prior.
    test_posterior : on the class shares of the test split, because whether a label is doubtful does not depend on where the
        model will run.
    """

    classes: np.ndarray
    posterior: np.ndarray
    test_posterior: np.ndarray


def predictions(corrected: Corrected, name: str, seeds: list[int], shares: np.ndarray) -> Predictions:
    """The predictions of one technique; shares (K,) of the test split."""
    logits = [corrected.test(name, seed) for seed in seeds]
    on_shares = [correct_prior(of_seed, corrected.production, shares) for of_seed in logits]
    return Predictions(
        classes=np.stack([of_seed.argmax(axis=1) for of_seed in logits]),
        posterior=np.mean([softmax(of_seed, axis=1) for of_seed in logits], axis=0),
        test_posterior=np.mean([softmax(of_seed, axis=1) for of_seed in on_shares], axis=0),
    )


def rounded(value: Any) -> Any:
    """Nested results with rounded numbers, which keeps the file small."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value if value is None else round(float(value), DIGITS)


class RowEntries:
    """Describes rows of the test split as entries of the file."""

    def __init__(self, test: pd.DataFrame, labels: list[str]) -> None:
        self.test, self.labels = test, labels
        self.classes = test["class"].to_numpy()

    def entries(self, rows: np.ndarray, posterior: np.ndarray) -> list[dict[str, Any]]:
        """Row, id, label, predicted class and its probability of test rows (m,), from posteriors (n, K)."""
        return [
            {
                "row": int(self.test.index[at]),
                "id": str(self.test["id"].iloc[at]),
                "label": self.labels[self.classes[at]],
                "predicted": self.labels[posterior[at].argmax()],
                "probability": round(float(posterior[at].max()), DIGITS),
            }
            for at in rows
        ]


def neighbours(messages: Messages, rows: list[int]) -> dict[str, list[dict[str, Any]]]:
    """The training messages most similar to the messages in some rows of the table, by row; dissimilar ones are left out."""
    if not rows:
        return {}
    train = messages.table[messages.table["split"] != "test"]
    nearest, similarity = nearest_neighbours(train["text"].tolist(), messages.table.loc[rows, "text"].tolist(), NEIGHBOURS)
    return {
        str(row): [
            {
                "row": int(train.index[at]),
                "id": str(train["id"].iloc[at]),
                "label": messages.names[train["class"].iloc[at]],
                "similarity": round(float(value), DIGITS),
            }
            for at, value in zip(of_row, values, strict=True)
            if value > 0
        ]
        for row, of_row, values in zip(rows, nearest, similarity, strict=True)
    }


def shared_mistakes(named: RowEntries, predicted: list[Predictions], most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mistakes that all techniques share, the least likely labels first, and suspected label errors."""
    classes = named.classes
    if not predicted:
        return {"count": 0, "shown": []}, {"count": 0, "issues": 0, "shown": []}
    posterior = np.sum([technique.posterior for technique in predicted], axis=0) / len(predicted)
    wrong_by_all = np.all([technique.posterior.argmax(axis=1) != classes for technique in predicted], axis=0)
    rows = np.flatnonzero(wrong_by_all)
    rows = rows[np.argsort(posterior[rows, classes[rows]], kind="stable")]
    test_posterior = np.sum([technique.test_posterior for technique in predicted], axis=0) / len(predicted)
    doubted, quality, issues = suspected_label_errors(test_posterior, classes)
    shown = [
        {**entry, "quality": round(float(quality[at]), DIGITS), "issue": bool(issues[at])}
        for at, entry in enumerate(named.entries(doubted[:most], test_posterior))
    ]
    suspects = {"count": len(doubted), "issues": int(issues.sum()), "shown": shown}
    return {"count": len(rows), "shown": named.entries(rows[:most], posterior)}, suspects


def slice_sizes(masks: Mapping[str, np.ndarray], classes: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The slices with their messages, and their messages of each class."""
    support = {name: np.bincount(classes[mask], minlength=len(labels)).tolist() for name, mask in masks.items()}
    return {
        "least": MINIMUM_IN_SLICE,
        "order": list(masks),
        "messages": {name: int(mask.sum()) for name, mask in masks.items()},
        "support": {name: dict(zip(labels, counts, strict=True)) for name, counts in support.items()},
    }


def main() -> None:
    params = read_params()
    most, names = params.report.mistakes, list(params.techniques)
    messages = read_messages(["id", "text", "group"])
    labels, test = messages.names, messages.test()
    classes, groups = test["class"].to_numpy(), np.unique(test["group"], return_inverse=True)[1]
    shares = messages.counts(test) / len(test)
    evaluations = {name: read_json(PROJECT.evaluations / f"{name}.json") for name in names}
    prior = evaluations[names[0]]["production_prior"]
    corrected = Corrected(evaluations, labels, np.array([prior[label] for label in labels]))
    named, masks = RowEntries(test, labels), slices(test["text"].tolist())

    counted: dict[str, Predictions] = {}
    mistakes, in_slice = {}, {}
    for name in names:
        technique = predictions(corrected, name, params.train.seeds, shares)
        predicted = technique.posterior.argmax(axis=1)
        rows = most_confident_errors(technique.posterior, classes, most)
        mistakes[name] = {"count": int((predicted != classes).sum()), "shown": named.entries(rows, technique.posterior)}
        in_slice[name] = slice_metrics(technique.classes, classes, groups, masks, labels, params.evaluate.confidence)
        if beats_majority(predicted, classes):
            counted[name] = technique

    shared, suspects = shared_mistakes(named, list(counted.values()), most)
    shown = {entry["row"] for listed in (shared, suspects, *mistakes.values()) for entry in listed["shown"]}
    content = {
        "labels": labels,
        "messages": len(test),
        "counted": list(counted),
        "mistakes": mistakes,
        "shared": shared,
        "suspects": suspects,
        "neighbours": neighbours(messages, sorted(shown)),
        "slices": {**slice_sizes(masks, classes, labels), "techniques": rounded(in_slice)},
    }
    write_json(PROJECT.errors, content)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
