"""Compare the variants of a study.

Reads `studies/<study>/variants/`; writes `studies/results/<study>.json`: metrics of every variant and technique, raw and
corrected, with differences from the reference. Variants that are folds of the same data are pooled as one test set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ballast.cli import parser
from ballast.evaluation.adjustment import adjust
from ballast.evaluation.claim_verdicts import assess_raw_and_corrected
from ballast.evaluation.claims import Design
from ballast.evaluation.comparison import compare, reference_of
from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.pooled import FAMILIES, PooledDecisions, pooled_decisions
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.evaluation.published_claims import claims
from ballast.evaluation.seed_variation import with_seed_variation
from ballast.exceptions import UserError
from stages.store.files import read_json, write_json
from stages.store.logits import read_trainings
from stages.store.messages import read_messages
from stages.store.project import PROJECT, Project
from stages.store.protocol import protocol_of
from stages.store.running import run
from stages.store.studies import (
    POOLED_NAME,
    Result,
    Row,
    Variant,
    params_path,
    read_study,
    read_variants,
    result_path,
    settings_digest,
    value_at,
    variant_folder,
)

Logits = dict[str, dict[str, list[np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A variant's test set: rows (id, class, group), the protocol, and logits by family and technique, one array a training."""

    rows: pd.DataFrame
    protocol: Protocol
    logits: Logits
    training: Mapping[str, dict[str, float]]

    def same_test(self, other: Tested) -> bool:
        """Whether both have the same test messages, so that their differences are paired."""
        return self.rows.equals(other.rows)


def read_tested(project: Project, variant: Variant) -> Tested:
    """The scores of a variant's test set, on the production prior; corrections are fitted on its own out-of-fold scores."""
    counts = read_json(PROJECT.ingest)["labels"]
    messages = read_messages(["id", "group"], project)
    seeds = variant.params.train.seeds
    trainings = {name: read_trainings(name, seeds, messages, project) for name in variant.params.techniques}
    # All techniques have the same folds.
    protocol = protocol_of(variant.params, messages, counts, next(iter(trainings.values())))
    logits: Logits = {family: {} for family in FAMILIES}
    for name, by_seed in trainings.items():
        adjusted = adjust([training.scores for training in by_seed.values()], protocol)
        logits["raw"][name] = [scores.test.astype(np.float64) for scores in adjusted.scores]
        logits["corrected"][name] = list(adjusted.test)
    rows = messages.test()[["id", "class", "group"]].reset_index(drop=True)
    return Tested(rows=rows, protocol=protocol, logits=logits, training=read_json(project.training))


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
    return Tested(rows=rows, protocol=replace(folds[0].protocol, test=test), logits=logits, training=training)


def pooled(study: str, variants: Mapping[str, Variant], tested: Mapping[str, Tested]) -> dict[str, Tested]:
    """The test sets of the variants; folds are pooled, and each repeat of them counts as one training a seed."""
    folded = [name for name, variant in variants.items() if variant.params.ingest.folds is not None]
    if not folded:
        return dict(tested)
    repeats: dict[int, dict[int, Tested]] = {}
    counts = set()
    for name, variant in variants.items():
        folds = variant.params.ingest.folds
        if folds is not None:
            counts.add(folds.count)
            repeats.setdefault(variant.params.ingest.seed, {})[folds.index] = tested[name]
    whole = len(counts) == 1 and all(sorted(folds) == list(range(max(counts))) for folds in repeats.values())
    if not whole or sum(map(len, repeats.values())) < len(variants):
        raise UserError(f"{params_path(study)}: variants: each ingest.seed needs every fold from 0 to count - 1 exactly once")
    first, *others = [together([folds[index] for index in sorted(folds)]) for folds in repeats.values()]
    if not all(first.same_test(other) for other in others):
        raise UserError(f"{params_path(study)}: variants: the repeats must have the same messages")
    logits: Logits = {
        family: {name: [part for repeat in (first, *others) for part in repeat.logits[family][name]] for name in of_family}
        for family, of_family in first.logits.items()
    }
    return {POOLED_NAME: replace(first, logits=logits)}


def differences(
    own: Mapping[str, Mapping[str, PooledDecisions]],
    groups: Mapping[str, list[tuple[str, str]]],
    metrics: list[str],
    confidence: float,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Paired, adjusted differences from the first row of each group: by variant and technique, then by family and metric."""
    by_row: dict[tuple[str, str], dict[str, Any]] = {}
    for rows in groups.values():
        for family in FAMILIES:
            draws = {" / ".join(row): own[row[0]][row[1]].draws[family] for row in rows}
            compared = compare(with_seed_variation(draws), " / ".join(rows[0]), metrics, confidence, LOSSES)
            for row in rows[1:]:
                by_row.setdefault(row, {})[family] = compared[" / ".join(row)]["metrics"]
    return by_row


def rows_to_compare(tested: Mapping[str, Tested], reference: str) -> dict[str, list[tuple[str, str]]]:
    """The rows (variant, technique) to compare with each other, the reference first.

    These are the same technique in all variants with the same test set or, for a single variant, its techniques.
    """
    if len(tested) == 1:
        [(variant, only)] = tested.items()
        names = list(only.logits["raw"])
        first = reference_of(names)
        return {variant: [(variant, name) for name in [first, *(name for name in names if name != first)]]}
    order = [reference, *(name for name in tested if name != reference)]
    return {
        name: [
            (variant, name)
            for variant in order
            if name in tested[variant].logits["raw"] and tested[variant].same_test(tested[reference])
        ]
        for name in tested[reference].logits["raw"]
    }


def result(study: str) -> Result:
    """The result of a study."""
    settings, variants = read_study(study), read_variants(study)
    tested = {name: read_tested(Project(variant_folder(study, name)), variant) for name, variant in variants.items()}
    tested = pooled(study, variants, tested)
    own: dict[str, dict[str, PooledDecisions]] = {
        variant: {
            name: pooled_decisions(test_set.logits["raw"][name], test_set.logits["corrected"][name], test_set.protocol)
            for name in test_set.training
        }
        for variant, test_set in tested.items()
    }
    first = next(iter(tested.values()))
    labels, confidence = list(first.protocol.names), first.protocol.confidence
    rarest = labels[int(first.protocol.production_prior.argmin())]
    metrics = ["accuracy", "balanced_accuracy", "macro_f1", "mcc"]
    metrics += [f"{label}.{metric}" for label in labels for metric in ("precision", "recall", "f1")]
    reference = settings.reference or next(iter(tested))
    groups = rows_to_compare(tested, reference)
    compared_with = {row: rows[0] for rows in groups.values() for row in rows[1:]}
    by_row = differences(own, groups, metrics, confidence)
    rows = [
        Row(
            variant=variant,
            technique=name,
            at=value_at(variants[variant].content, settings.axis.key) if settings.axis and variant in variants else None,
            seeds=next(iter(variants.values())).params.train.seeds,
            training=tested[variant].training[name],
            metrics={family: {key: dict(of_technique.metrics[family][key]) for key in metrics} for family in FAMILIES},
            compared_with=" / ".join(compared_with[variant, name]) if (variant, name) in compared_with else None,
            differences=by_row.get((variant, name)),
        )
        for variant, of_variant in own.items()
        for name, of_technique in of_variant.items()
    ]
    # Claims about variants that train one technique each.
    singles = {
        variant: next(iter(by_technique.values())).draws for variant, by_technique in own.items() if len(by_technique) == 1
    }
    raw, corrected = (
        with_seed_variation({variant: draws[family] for variant, draws in singles.items()}) if singles else {}
        for family in FAMILIES
    )
    support = int((first.protocol.test.classes == labels.index(rarest)).sum())
    most_frequent = labels[int(first.protocol.production_prior.argmax())]
    trainings = len(next(iter(variants.values())).params.train.seeds)
    design = Design(draws=raw, label=rarest, rare=support, trainings=trainings, confidence=confidence, study=study)
    stated = assess_raw_and_corrected(claims(rarest, most_frequent, list(raw), tuned=False), design, corrected)
    return Result(
        data=read_json(PROJECT.ingest)["sha256"],
        settings=settings_digest(),
        question=settings.question,
        labels=labels,
        rarest=rarest,
        support=support,
        confidence=confidence,
        axis=settings.axis,
        rows=sorted(rows, key=lambda row: row.at or 0),
        claims=[claim for claim in stated if claim["parts"]],
    )


def main(study: str) -> None:
    outcome = result(study)
    write_json(result_path(study), outcome.model_dump())
    print(f"study_result: {result_path(study)}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("study", help="a folder of studies/")
    run(main, arguments.parse_args())
