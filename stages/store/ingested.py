"""Numbers of messages in the splits and folds, from `data/ingest.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stages.store.data_sections import FIXED_SPLITS


def validation_counts(ingested: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, int]:
    """Messages of each label that some seeds validate on, each message once.

    >>> ingested = {"labels": {"ham": 9, "spam": 5}, "folds": [{"ham": 4, "spam": 2}, {"ham": 3, "spam": 1}]}
    >>> validation_counts(ingested, seeds=[0, 2]), validation_counts(ingested, seeds=[0, 1])
    ({'ham': 4, 'spam': 2}, {'ham': 7, 'spam': 3})
    """
    folds = ingested["folds"]
    if not folds:
        return dict(ingested["splits"]["validation"])
    validated = {seed % len(folds) for seed in seeds}
    return {label: sum(folds[fold][label] for fold in validated) for label in ingested["labels"]}


def training_counts(ingested: Mapping[str, Any], seed: int) -> np.ndarray:
    """Messages of each class (K,) that a seed trains on.

    >>> ingested = {"labels": {"ham": 9, "spam": 5}, "splits": {"train": {"ham": 7, "spam": 3}}}
    >>> training_counts(ingested | {"folds": [{"ham": 4, "spam": 2}, {"ham": 3, "spam": 1}]}, seed=1)
    array([4, 2])
    """
    train = ingested["splits"]["train"]
    held_out = validation_counts(ingested, [seed]) if ingested["folds"] else dict.fromkeys(train, 0)
    return np.array([train[label] - held_out[label] for label in ingested["labels"]])


def prior_counts(ingested: Mapping[str, Any]) -> dict[str, int]:
    """Messages of each label whose shares `production.prior: data` takes: all, or the training messages.

    If the data determines the test split, its class shares may differ from those of training. A mixture of both would be the
    prior of no population.

    >>> ingested = {"labels": {"ham": 9, "spam": 5}, "splits": {"train": {"ham": 7, "spam": 1}}, "split": {"rule": "column"}}
    >>> prior_counts(ingested), prior_counts(ingested | {"split": {"rule": "grouped"}})
    ({'ham': 7, 'spam': 1}, {'ham': 9, 'spam': 5})
    """
    return dict(ingested["splits"]["train"] if fixed_split(ingested) else ingested["labels"])


def fixed_split(ingested: Mapping[str, Any]) -> bool:
    """Whether the data determines the test split."""
    return ingested.get("split", {}).get("rule") in FIXED_SPLITS
