"""Find the errors of each technique on test, the errors common to all, difficult slices, and suspected label errors.

Suspected label errors are sought outside the test split, on out-of-fold scores: test labels stay as they are, and no model has
trained on the label that it doubts.

Reads the saved logits, their evaluations and the messages; writes `reports/errors.json`, which names messages by their row in
`data/messages.parquet` and their id, and `reports/relabel.csv`, the suspects for a person to correct
(`stages.production.relabel` takes the file back). The first holds no texts: the report looks them up. With
`report.show_texts: false`, the second holds none either.
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
from stages.store.messages import Messages
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.relabelled import write_suspects
from stages.store.running import run
from stages.store.units import read_with_units

NEIGHBOURS = 3
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one technique on test, on the production prior: classes by seed (S, n), mean posteriors (n, K)."""

    classes: np.ndarray
    posterior: np.ndarray


def predictions(corrected: Corrected, name: str, seeds: list[int]) -> Predictions:
    """The predictions of one technique."""
    logits = [corrected.test(name, seed) for seed in seeds]
    return Predictions(
        classes=np.stack([of_seed.argmax(axis=1) for of_seed in logits]),
        posterior=np.mean([softmax(of_seed, axis=1) for of_seed in logits], axis=0),
    )


def out_of_fold_posterior(corrected: Corrected, names: list[str], seeds: list[int], messages: Messages) -> pd.DataFrame:
    """Mean out-of-fold posteriors (n rows, K) by row of the table; 0 columns if no technique beats the majority class.

    They are averaged over the techniques that beat it out of fold, and over the seeds that share a fold. They are on the class
    shares of these messages: whether a label is doubtful does not depend on where the model will run.
    """
    rows = np.concatenate([messages.validation(seed).index.to_numpy() for seed in seeds])
    classes = messages.table.loc[rows, "class"].to_numpy()
    shares = messages.counts(messages.table.loc[np.unique(rows)])
    posteriors = []
    for name in names:
        logits = correct_prior(corrected.out_of_fold(name, seeds), corrected.production, shares / shares.sum())
        if beats_majority(logits.argmax(axis=1), classes):
            posteriors.append(softmax(logits, axis=1))
    mean = np.mean(posteriors, axis=0) if posteriors else np.empty((len(rows), 0))
    return pd.DataFrame(mean, index=rows).groupby(level=0).mean()


def rounded(value: Any) -> Any:
    """Nested results with rounded numbers, which keeps the file small."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value if value is None else round(float(value), DIGITS)


class RowEntries:
    """Describes n rows of the table of messages as entries of the file."""

    def __init__(self, messages: pd.DataFrame, labels: list[str]) -> None:
        self.messages, self.labels = messages, labels
        self.classes = messages["class"].to_numpy()

    def entries(self, rows: np.ndarray, posterior: np.ndarray) -> list[dict[str, Any]]:
        """Row, id, label, predicted class and its probability of rows (m,) among the n, from posteriors (n, K)."""
        return [
            {
                "row": int(self.messages.index[at]),
                "id": str(self.messages["id"].iloc[at]),
                "label": self.labels[self.classes[at]],
                "predicted": self.labels[posterior[at].argmax()],
                "probability": round(float(posterior[at].max()), DIGITS),
            }
            for at in rows
        ]


def neighbours(messages: Messages, rows: list[int]) -> dict[str, list[dict[str, Any]]]:
    """The training messages most similar to the messages in some rows of the table, by row.

    Dissimilar ones and the message itself are left out.
    """
    if not rows:
        return {}
    train = messages.table[messages.table["split"] != "test"]
    texts = messages.table.loc[rows, "text"].tolist()
    nearest, similarity = nearest_neighbours(train["text"].tolist(), texts, NEIGHBOURS + 1)
    return {
        str(row): [
            {
                "row": int(train.index[at]),
                "id": str(train["id"].iloc[at]),
                "label": messages.names[train["class"].iloc[at]],
                "similarity": round(float(value), DIGITS),
            }
            for at, value in zip(of_row, values, strict=True)
            if value > 0 and train.index[at] != row
        ][:NEIGHBOURS]
        for row, of_row, values in zip(rows, nearest, similarity, strict=True)
    }


def shared_mistakes(named: RowEntries, predicted: list[Predictions], most: int) -> dict[str, Any]:
    """The mistakes on test that all techniques share, the least likely labels first."""
    classes = named.classes
    if not predicted:
        return {"count": 0, "shown": []}
    posterior = np.sum([technique.posterior for technique in predicted], axis=0) / len(predicted)
    wrong_by_all = np.all([technique.posterior.argmax(axis=1) != classes for technique in predicted], axis=0)
    rows = np.flatnonzero(wrong_by_all)
    rows = rows[np.argsort(posterior[rows, classes[rows]], kind="stable")]
    return {"count": len(rows), "shown": named.entries(rows[:most], posterior)}


def label_suspects(named: RowEntries, posterior: np.ndarray) -> list[dict[str, Any]]:
    """Suspected label errors among n messages with out-of-fold posteriors (n, K), the least likely labels first."""
    doubted, quality, issues = suspected_label_errors(posterior, named.classes)
    return [
        {**entry, "quality": round(float(quality[at]), DIGITS), "issue": bool(issues[at])}
        for at, entry in enumerate(named.entries(doubted, posterior))
    ]


def relabelling_rows(suspects: list[dict[str, Any]], texts: pd.Series | None) -> list[dict[str, Any]]:
    """The rows of reports/relabel.csv; the text is blank without `texts` by row."""
    return [
        {**entry, "suggested": entry["predicted"], "text": "" if texts is None else texts[entry["row"]]} for entry in suspects
    ]


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
    messages = read_with_units(["id", "text"])
    labels, test = messages.names, messages.test()
    classes, groups = test["class"].to_numpy(), np.unique(test["group"], return_inverse=True)[1]
    evaluations = {name: read_json(PROJECT.evaluations / f"{name}.json") for name in names}
    prior = evaluations[names[0]]["production_prior"]
    corrected = Corrected(evaluations, labels, np.array([prior[label] for label in labels]))
    named, masks = RowEntries(test, labels), slices(test["text"].tolist())

    counted: dict[str, Predictions] = {}
    mistakes, in_slice = {}, {}
    for name in names:
        technique = predictions(corrected, name, params.train.seeds)
        predicted = technique.posterior.argmax(axis=1)
        rows = most_confident_errors(technique.posterior, classes, most)
        mistakes[name] = {"count": int((predicted != classes).sum()), "shown": named.entries(rows, technique.posterior)}
        in_slice[name] = slice_metrics(technique.classes, classes, groups, masks, labels, params.evaluate.confidence)
        if beats_majority(predicted, classes):
            counted[name] = technique

    posterior = out_of_fold_posterior(corrected, names, params.train.seeds, messages)
    held_out = messages.table.loc[posterior.index]
    suspects = label_suspects(RowEntries(held_out, labels), posterior.to_numpy()) if posterior.shape[1] else []
    write_suspects(PROJECT.relabel, relabelling_rows(suspects, held_out["text"] if params.report.show_texts else None))
    listed_suspects = {
        "count": len(suspects),
        "issues": sum(entry["issue"] for entry in suspects),
        "covered": len(held_out),
        "outside_test": len(messages.table) - len(test),
        "suggested": {str(entry["row"]): entry["predicted"] for entry in suspects},
        "shown": suspects[:most],
    }
    shared = shared_mistakes(named, list(counted.values()), most)
    shown = {entry["row"] for listed in (shared, listed_suspects, *mistakes.values()) for entry in listed["shown"]}
    content = {
        "labels": labels,
        "messages": len(test),
        "counted": list(counted),
        "mistakes": mistakes,
        "shared": shared,
        "suspects": listed_suspects,
        "neighbours": neighbours(messages, sorted(shown)),
        "slices": {**slice_sizes(masks, classes, labels), "techniques": rounded(in_slice)},
    }
    write_json(PROJECT.errors, content)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
