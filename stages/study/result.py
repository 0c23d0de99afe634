"""Compare the variants of a study.

Reads `studies/<study>/variants/`; writes `studies/results/<study>.json`: metrics of every variant and technique, raw and
corrected, with differences from the reference. Variants that are folds of the same data are pooled as one test set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ballast.cli import parser
from ballast.evaluation.adjustment import adjust
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claim_verdicts import assess_raw_and_corrected
from ballast.evaluation.claims import Design
from ballast.evaluation.comparison import compare, reference_of
from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.pooled import FAMILIES, PooledDecisions, pooled_decisions
from ballast.evaluation.published_claims import claims
from stages.store.files import read_json, write_json
from stages.store.ingested import prior_counts
from stages.store.logits import protocol_of, read_trainings
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.studies import (
    PROTOCOL,
    Result,
    Row,
    Variant,
    read_study,
    read_variants,
    result_path,
    settings_digest,
    value_at,
    variant_folder,
)
from stages.store.training_sections import Evaluate, Train
from stages.store.units import read_with_units
from stages.study.pooling import Logits, Tested, pooled
from stages.study.variation import Entry, claim_names, name_of, varied_draws, with_claim_metrics


def read_tested(project: Project, variant: Variant) -> Tested:
    """The scores of a variant's test set, on the production prior; corrections are fitted on its own out-of-fold scores."""
    counts = prior_counts(read_json(PROJECT.ingest))
    messages = read_with_units(["id"], project)
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
    encoder = read_json(project.encoder)
    return Tested(
        rows=rows,
        protocol=protocol,
        logits=logits,
        training=read_json(project.training),
        encoder={key: encoder[key] for key in Train.AUTO},
    )


def differences(
    draws: Mapping[str, Mapping[Entry, Draws]], groups: Mapping[str, list[Entry]], metrics: list[str], settings: Evaluate
) -> dict[Entry, dict[str, Any]]:
    """Paired, adjusted differences from the first row of each group: by row, then by family and metric."""
    by_row: dict[Entry, dict[str, Any]] = {}
    for rows in groups.values():
        for family in FAMILIES:
            of_rows = {name_of(row): draws[family][row] for row in rows}
            compared = compare(of_rows, name_of(rows[0]), metrics, settings.confidence, LOSSES, settings.margin)
            for row in rows[1:]:
                by_row.setdefault(row, {})[family] = compared[name_of(row)]["metrics"]
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


def study_claims(study: str, draws: Mapping[str, Mapping[Entry, Draws]], tested: Mapping[str, Tested]) -> list[dict[str, Any]]:
    """The claims that the study measures."""
    first = next(iter(tested.values()))
    names, prior = claim_names(tested), first.protocol.production_prior
    labels = first.protocol.names
    # Only rows with the same test messages can be compared.
    rows = {entry: name for entry, name in names.items() if tested[entry[0]].same_test(first)}
    measured = {
        family: {
            name: with_claim_metrics(draws[family][entry], entry, tested[entry[0]], family) for entry, name in rows.items()
        }
        for family in FAMILIES
    }
    rarest, most_frequent = int(prior.argmin()), int(prior.argmax())
    design = Design(
        draws=measured["raw"],
        label=labels[rarest],
        rare=first.protocol.test.counts(len(labels))[rarest],
        trainings=first.trainings,
        confidence=first.protocol.confidence,
        study=study,
    )
    stated = claims(labels[rarest], labels[most_frequent], list(rows.values()), tuned=False)
    return [claim for claim in assess_raw_and_corrected(stated, design, measured["corrected"]) if claim["parts"]]


def result(study: str) -> Result:
    """The result of a study."""
    settings, variants = read_study(study), read_variants(study)
    tested = {name: read_tested(Project(variant_folder(study, name)), variant) for name, variant in variants.items()}
    tested = pooled(study, variants, tested)
    # The first variant of a name has the settings that the folds share.
    content = {variant.pooled_as: variant.content for variant in reversed(variants.values())}
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
    groups = rows_to_compare(tested, settings.reference or next(iter(tested)))
    compared_with = {row: rows[0] for rows in groups.values() for row in rows[1:]}
    draws = {family: varied_draws(own, tested, family) for family in FAMILIES}
    by_row = differences(draws, groups, metrics, read_params().evaluate)
    rows = [
        Row(
            variant=variant,
            technique=name,
            at=value_at(content[variant], settings.axis.key) if settings.axis else None,
            seeds=next(iter(variants.values())).params.train.seeds,
            training=tested[variant].training[name],
            encoder=dict(tested[variant].encoder),
            metrics={family: {key: dict(of_technique.metrics[family][key]) for key in metrics} for family in FAMILIES},
            compared_with=name_of(compared_with[variant, name]) if (variant, name) in compared_with else None,
            differences=by_row.get((variant, name)),
        )
        for variant, of_variant in own.items()
        for name, of_technique in of_variant.items()
    ]
    return Result(
        protocol=PROTOCOL,
        data=read_json(PROJECT.ingest)["sha256"],
        settings=settings_digest(),
        question=settings.question,
        labels=labels,
        rarest=rarest,
        support=first.protocol.test.counts(len(labels))[labels.index(rarest)],
        trainings=first.trainings,
        confidence=confidence,
        axis=settings.axis,
        rows=sorted(rows, key=lambda row: row.at or 0),
        claims=study_claims(study, draws, tested),
    )


def main(study: str) -> None:
    outcome = result(study)
    write_json(result_path(study), outcome.model_dump())
    print(f"study_result: {result_path(study)}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("study", help="a folder of studies/")
    run(main, arguments.parse_args())
