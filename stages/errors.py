"""Find what each technique gets wrong on test, what all of them do, which labels to doubt, and which slices are hard.

Reads the saved logits, their evaluations and the messages; writes `reports/errors.json`, which names messages by their row in
`data/messages.parquet` and their id and holds no texts: the report looks those up, unless it is told to hide them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.cli import parser, run
from ballast.evaluation.error_analysis import (
    LEAST_IN_SLICE,
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

NEIGHBOURS = 3
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Called:
    """What a technique makes of the test messages: each seed's classes (S, n), the mean posterior (n, K) over the seeds.

    posterior is on the production prior. On the shares of the test split itself it is own_shares (n, K): whether a label is
    doubtful does not depend on where the model will run.
    """

    predicted: np.ndarray
    posterior: np.ndarray
    own_shares: np.ndarray


def called(corrected: Corrected, name: str, seeds: list[int], shares: np.ndarray) -> Called:
    """Posteriors of one technique; shares (K,) of the test split."""
    logits = [corrected.logits(name, seed, "test") for seed in seeds]
    return Called(
        predicted=np.stack([each.argmax(axis=1) for each in logits]),
        posterior=np.mean([softmax(each, axis=1) for each in logits], axis=0),
        own_shares=np.mean([softmax(correct_prior(each, corrected.production, shares), axis=1) for each in logits], axis=0),
    )


def rounded(value: Any) -> Any:
    """Numbers of nested results to a few digits, which keeps the file small."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return value if value is None else round(float(value), DIGITS)


class Named:
    """Entries of the file about some rows of the test split."""

    def __init__(self, test: pd.DataFrame, labels: list[str]) -> None:
        self.test, self.labels = test, labels
        self.classes = test["class"].to_numpy()

    def entries(self, rows: np.ndarray, posterior: np.ndarray) -> list[dict[str, Any]]:
        """Row, id, label, called class and its probability of test rows (m,), from posterior (n, K)."""
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
    """The training messages most similar to those of some rows of the table, by row; those with nothing in common left out."""
    if not rows:
        return {}
    train = messages.of("train")
    found, similarity = nearest_neighbours(train["text"].tolist(), messages.table.loc[rows, "text"].tolist(), NEIGHBOURS)
    return {
        str(row): [
            {
                "row": int(train.index[at]),
                "id": str(train["id"].iloc[at]),
                "label": messages.names[train["class"].iloc[at]],
                "similarity": round(float(each), DIGITS),
            }
            for at, each in zip(near, likeness, strict=True)
            if each > 0
        ]
        for row, near, likeness in zip(rows, found, similarity, strict=True)
    }


def main() -> None:
    params = read_params()
    most, names = params.report.mistakes, list(params.techniques)
    messages = read_messages(["id", "text", "group"])
    labels, test = messages.names, messages.of("test")
    classes, groups = test["class"].to_numpy(), np.unique(test["group"], return_inverse=True)[1]
    shares = messages.counts("test") / len(test)
    evaluations = {name: read_json(PROJECT.evaluations / f"{name}.json") for name in names}
    prior = evaluations[names[0]]["production_prior"]
    corrected = Corrected(evaluations, labels, np.array([prior[label] for label in labels]))
    named, masks = Named(test, labels), slices(test["text"].tolist())

    counted, wrong_by_all = [], np.ones(len(test), dtype=bool)
    production, own_shares = np.zeros((len(test), len(labels))), np.zeros((len(test), len(labels)))
    mistakes, in_slice = {}, {}
    for name in names:
        found = called(corrected, name, params.train.seeds, shares)
        predicted = found.posterior.argmax(axis=1)
        rows = most_confident_errors(found.posterior, classes, most)
        mistakes[name] = {"count": int((predicted != classes).sum()), "shown": named.entries(rows, found.posterior)}
        in_slice[name] = slice_metrics(found.predicted, classes, groups, masks, labels, params.evaluate.confidence)
        if beats_majority(predicted, classes):
            counted.append(name)
            wrong_by_all &= predicted != classes
            production += found.posterior
            own_shares += found.own_shares

    shared: dict[str, Any] = {"count": 0, "shown": []}
    suspects: dict[str, Any] = {"count": 0, "issues": 0, "shown": []}
    if counted:
        production, own_shares = production / len(counted), own_shares / len(counted)
        # Of what all call wrong, the least likely labels first.
        rows = np.flatnonzero(wrong_by_all)
        rows = rows[np.argsort(production[rows, classes[rows]], kind="stable")]
        shared = {"count": len(rows), "shown": named.entries(rows[:most], production)}
        doubted, quality, issues = suspected_label_errors(own_shares, classes)
        shown = [
            {**entry, "quality": round(float(quality[at]), DIGITS), "issue": bool(issues[at])}
            for at, entry in enumerate(named.entries(doubted[:most], own_shares))
        ]
        suspects = {"count": len(doubted), "issues": int(issues.sum()), "shown": shown}
    listed = [shared, suspects, *mistakes.values()]
    content = {
        "labels": labels,
        "messages": len(test),
        "counted": counted,
        "mistakes": mistakes,
        "shared": shared,
        "suspects": suspects,
        "neighbours": neighbours(messages, sorted({entry["row"] for each in listed for entry in each["shown"]})),
        "slices": {
            "least": LEAST_IN_SLICE,
            "order": list(masks),
            "messages": {name: int(mask.sum()) for name, mask in masks.items()},
            "support": {
                name: dict(zip(labels, np.bincount(classes[mask], minlength=len(labels)).tolist(), strict=True))
                for name, mask in masks.items()
            },
            "techniques": rounded(in_slice),
        },
    }
    write_json(PROJECT.errors, content)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
