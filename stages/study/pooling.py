"""The test sets of a study's variants: the folds of a variant as one test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ballast.evaluation.pooled import FAMILIES
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.exceptions import UserError
from stages.store.studies import Variant, params_path

Logits = dict[str, dict[str, list[np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A variant's test set: rows (id, class, group), the protocol, and logits by family and technique, one array a training.

    encoder : the learning rate and the frozen layers of the variant, or of its first fold.
    folds : (n,) fold of each row, one array for each repeat; empty if a single test set is not divided.
    """

    rows: pd.DataFrame
    protocol: Protocol
    logits: Logits
    training: Mapping[str, dict[str, float]]
    encoder: Mapping[str, float]
    folds: Sequence[np.ndarray] = ()

    @property
    def trainings(self) -> int:
        """Trainings of each technique, by seed and by fold."""
        arrays = len(next(iter(self.logits["raw"].values())))
        return arrays * (int(self.folds[0].max()) + 1 if self.folds else 1)

    def same_test(self, other: Tested) -> bool:
        """Whether both have the same test messages, so that their differences are paired."""
        return self.rows.equals(other.rows)


def together(folds: Sequence[Tested]) -> Tested:
    """The folds of one repeat as one test set, in the order of the ids."""
    rows = pd.concat([fold.rows for fold in folds])
    order = np.argsort(rows["id"].to_numpy(), kind="stable")
    rows = rows.iloc[order].reset_index(drop=True)
    logits: Logits = {
        family: {
            name: [np.concatenate(parts)[order] for parts in zip(*(fold.logits[family][name] for fold in folds), strict=True)]
            for name in folds[0].logits[family]
        }
        for family in FAMILIES
    }
    test = Labelled(classes=rows["class"].to_numpy(), groups=np.unique(rows["group"], return_inverse=True)[1])
    training = {
        name: {label: float(np.mean([fold.training[name][label] for fold in folds])) for label in counts}
        for name, counts in folds[0].training.items()
    }
    fold_of = np.repeat(np.arange(len(folds)), [len(fold.rows) for fold in folds])[order]
    protocol = replace(folds[0].protocol, test=test)
    return replace(folds[0], rows=rows, protocol=protocol, logits=logits, training=training, folds=[fold_of])


def repeats_as_one(study: str, folds: Mapping[str, Variant], tested: Mapping[str, Tested]) -> Tested:
    """All folds under one name as one test set. Each repeat, with another seed of the split, counts as one training a seed.

    Raises UserError if a fold is missing.
    """
    repeats: dict[int, dict[int, Tested]] = {}
    counts = set()
    for name, variant in folds.items():
        fold = variant.params.ingest.folds
        if fold is not None:
            counts.add(fold.count)
            repeats.setdefault(variant.params.ingest.seed, {})[fold.index] = tested[name]
    whole = len(counts) == 1 and all(sorted(by_fold) == list(range(max(counts))) for by_fold in repeats.values())
    if not whole or sum(map(len, repeats.values())) < len(folds):
        raise UserError(f"{params_path(study)}: variants: each ingest.seed needs every fold from 0 to count - 1 exactly once")
    first, *others = [together([by_fold[index] for index in sorted(by_fold)]) for by_fold in repeats.values()]
    if not all(first.same_test(other) for other in others):
        raise UserError(f"{params_path(study)}: variants: the repeats must have the same messages")
    logits: Logits = {
        family: {name: [part for repeat in (first, *others) for part in repeat.logits[family][name]] for name in of_family}
        for family, of_family in first.logits.items()
    }
    return replace(first, logits=logits, folds=[fold_of for repeat in (first, *others) for fold_of in repeat.folds])


def pooled(study: str, variants: Mapping[str, Variant], tested: Mapping[str, Tested]) -> dict[str, Tested]:
    """The test sets by name, with the folds under one name pooled. Raises UserError if folds are missing or mixed."""
    if all(variant.params.ingest.folds is None for variant in variants.values()):
        return dict(tested)
    names: dict[str, dict[str, Variant]] = {}
    for name, variant in variants.items():
        names.setdefault(variant.pooled_as, {})[name] = variant
    if any(variant.params.ingest.folds is None for variant in variants.values()):
        raise UserError(f"{params_path(study)}: variants: only some have ingest.folds; expected all or none")
    return {name: repeats_as_one(study, of_name, tested) for name, of_name in names.items()}
