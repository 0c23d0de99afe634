"""The reference of a version: its labelled held-out messages with logits and descriptors, without their texts.

Each training has scored its fold of validation and test. The operating point is fitted on the validation of all trainings, as
in stage `evaluate`. A window is compared only with messages that the deployed training has scored and not seen: its own fold
and test. It was trained on the folds of the other trainings, whose scores have another distribution than its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ballast.data.descriptors import NAMES, descriptors
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.protocol import Labelled, OutOfFold, SeedScores
from ballast.monitoring.label_shift import ScoredMessages
from stages.production.deployed import REFERENCE, Version, indices
from stages.store.checked import read_frame
from stages.store.logits import Training
from stages.store.messages import Messages

# Stands for the seed where all trainings together scored a message.
ALL_TRAININGS = -1


def deployed_training(manifest: Mapping[str, Any]) -> int:
    """The seed of the deployed training, from the manifest of a version or the pointer of a selection.

    >>> deployed_training({"seed": 2}), deployed_training({"seeds": [0, 1, 2]})
    (2, -1)
    """
    seed = manifest.get("seed")
    return ALL_TRAININGS if seed is None else int(seed)


def reference_table(
    messages: Messages, trainings: Mapping[int, Training], words: np.ndarray, ensemble: np.ndarray | None = None
) -> pd.DataFrame:
    """The reference of a model.

    Parameters
    ----------
    trainings : of the selected technique, by seed.
    words : fingerprints of the words that the deployed model was trained on.
    ensemble : logits (m, K) of the test messages by all trainings together, if these are deployed.
    """
    parts = [
        (messages.validation(seed).assign(split="validation"), seed, trainings[seed].scores.validation) for seed in trainings
    ]
    parts += [(messages.test(), seed, trainings[seed].scores.test) for seed in trainings]
    parts += [] if ensemble is None else [(messages.test(), ALL_TRAININGS, ensemble)]
    rows: pd.DataFrame = pd.concat([part.assign(training=seed) for part, seed, _ in parts])
    logits = np.concatenate([scores for *_, scores in parts])
    columns = {f"logit_{label}": logits[:, at].astype(np.float32) for at, label in enumerate(messages.names)}
    table = rows[["label", "split", "group", "training"]].astype({"training": np.int64}).assign(row=rows.index, **columns)
    return pd.concat([table.reset_index(drop=True), descriptors(rows["text"].tolist(), words)], axis=1)


def read_held_out(version: Version) -> pd.DataFrame:
    """The reference of a version: label, split, group, training, row, a logit for each label, and the descriptors.

    training : the seed of the training that scored the row; `row` is that of the message in the table of messages.
    """
    table = read_frame(version.folder / REFERENCE, required=False)
    if "training" in table:
        return table
    # Versions of earlier releases hold the scores of one training.
    return table.assign(training=deployed_training(version.manifest), row=np.arange(len(table)))


def by_deployed_model(version: Version, held_out: pd.DataFrame) -> pd.DataFrame:
    """The rows of a reference with scores of the deployed model, which has not seen these messages."""
    return held_out[held_out["training"] == deployed_training(version.manifest)]


def logits_of(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Logits (n, K) of rows of a reference."""
    return rows[[f"logit_{label}" for label in labels]].to_numpy(dtype=np.float64)


def labelled(rows: pd.DataFrame, labels: list[str]) -> Labelled:
    """Classes and groups of rows of a reference."""
    return Labelled(classes=indices(rows["label"], labels), groups=np.unique(rows["group"], return_inverse=True)[1])


@dataclass(frozen=True, kw_only=True)
class ReferenceScores:
    """The scores of each training, as stage `evaluate` reads them, with the out-of-fold messages and the test messages.

    ensemble : logits (m, K) of the test messages by all trainings together, if these are deployed, else None.
    """

    scores: list[SeedScores]
    ensemble: np.ndarray | None
    out_of_fold: OutOfFold
    test: Labelled


def reference_scores(held_out: pd.DataFrame, labels: list[str], declared: np.ndarray | None) -> ReferenceScores:
    """The scores in a reference; `declared` is the declared prior (K,) of the technique, or None."""
    validation = held_out[held_out["split"] == "validation"]
    # Trainings that share a fold score the same messages.
    messages = validation.drop_duplicates("row")
    position = pd.Series(np.arange(len(messages)), index=messages["row"])
    none = np.empty((0, len(labels)))
    scores, tests = [], []
    for seed, rows in validation.groupby("training", sort=False):
        tests.append(held_out[(held_out["split"] == "test") & (held_out["training"] == seed)])
        scores.append(
            SeedScores(
                validation=logits_of(rows, labels),
                validation_rows=position[rows["row"]].to_numpy(),
                test=logits_of(tests[-1], labels),
                train=none,
                train_classes=none[:, 0].astype(np.int64),
                declared_prior=declared,
            )
        )
    of_ensemble = held_out[held_out["training"] == ALL_TRAININGS]
    return ReferenceScores(
        scores=scores,
        ensemble=logits_of(of_ensemble, labels) if len(of_ensemble) else None,
        out_of_fold=out_of_fold(
            [of_seed.validation_rows for of_seed in scores],
            indices(messages["label"], labels),
            messages["group"].to_numpy(),
        ),
        test=labelled(tests[0], labels),
    )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The labelled messages that the deployed model has scored and not seen, and their classes (m,).

    validation_shares : (K,) class shares of all out-of-fold messages, on which the calibration was fitted.
    """

    messages: ScoredMessages
    classes: np.ndarray
    validation_shares: np.ndarray


def read_reference(version: Version) -> Reference:
    """The labelled held-out messages of a version, with the scores of the deployed model."""
    held_out = read_held_out(version)
    rows, labels = by_deployed_model(version, held_out), version.labels
    of_validation = indices(held_out.loc[held_out["split"] == "validation", "label"], labels)
    return Reference(
        messages=ScoredMessages(
            posteriors=version.posteriors(logits_of(rows, labels)),
            groups=rows["group"].to_numpy(),
            descriptors={name: rows[name].to_numpy() for name in NAMES},
        ),
        classes=indices(rows["label"], labels),
        validation_shares=np.bincount(of_validation, minlength=len(labels)) / len(of_validation),
    )
