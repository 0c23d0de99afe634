"""The model card of the selected model, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ballast.evaluation.metrics import higher_is_better
from stages.pages.lengths import of_model
from stages.pages.model_card.text import comparison, limits, markdown, shown_classes, split_counts
from stages.pages.words import class_name, decision_rule, join_words, metric_name, operating_point_rule, with_interval
from stages.store.split_words import split_in_words

HERE = Path(__file__).parent
FAMILIES = ("raw", "corrected", "operating_point")
OVERALL = ("macro_f1", "accuracy", "balanced_accuracy", "mcc", "log_loss", "brier", "ece")
PER_CLASS = ("precision", "recall", "f1", "false_positive_rate", "pr_auc", "mean_probability")
AT_OPERATING_POINT = ("precision", "recall", "f1", "false_positive_rate")


def environment() -> Environment:
    """Jinja2 environment of the card. It escapes every text that it inserts, except what the filter `code` passes on."""
    jinja = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=False,
        finalize=markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters["code"] = Markup
    return jinja


def prior_rows(pointer: Mapping[str, Any], technique: Mapping[str, Any], production: Mapping[str, float]) -> list[list[str]]:
    """For each label: declared, measured, effective and production share."""
    declared = technique["declared_prior"]
    return [
        [
            label,
            "none" if declared is None else f"{declared[label]:.3f}",
            with_interval(technique["fitted_prior"][label]),
            f"{pointer['effective_prior'][label]:.3f}",
            f"{share:.3f}",
        ]
        for label, share in production.items()
    ]


def operating_point_rows(point: Mapping[str, Any], labels: list[str]) -> list[list[str]]:
    """For each label and metric: the value out of fold and on test, at the operating point."""
    keys = [(label, metric, f"{label}.{metric}") for label in labels for metric in AT_OPERATING_POINT]
    return [
        [label, metric_name(metric), with_interval(point["out_of_fold"][key]), with_interval(point["test"][key])]
        for label, metric, key in keys
        if point["test"][key]
    ]


def quality(point: Mapping[str, Any], label: str) -> str:
    """Precision and recall of a label at the operating point, in one sentence; empty if one is not defined."""
    precision, recall = (point["out_of_fold"][f"{label}.{metric}"] for metric in ("precision", "recall"))
    if not precision or not recall:
        return ""
    return (
        f"On out-of-fold messages, its decisions have a precision of {with_interval(precision)} and a recall of"
        f" {with_interval(recall)} for the class {label}."
    )


def metric_cells(technique: Mapping[str, Any], key: str) -> list[str]:
    """A metric raw, corrected and at the operating point."""
    return [with_interval(technique[family].get(key)) for family in FAMILIES]


def trainings(pointer: Mapping[str, Any]) -> str:
    """The seed of the model, or the seeds of an ensemble, in words."""
    if pointer["deploy"] != "ensemble":
        return f"seed {pointer['seed']}"
    return f"the seeds {join_words([str(seed) for seed in pointer['seeds']])}, as the mean of their logits"


def folders(pointer: Mapping[str, Any]) -> list[str]:
    """The folders of the model, or of the members of an ensemble."""
    return list(pointer["folders"] if pointer["deploy"] == "ensemble" else [pointer["folder"]])


def conditions(pointer: Mapping[str, Any]) -> list[str]:
    """The constraints of the selection."""
    sign = {metric: "≥" if higher_is_better(metric) else "≤" for metric in pointer["constraints"]}
    limits = [f"{metric_name(metric)} {sign[metric]} {limit:g}" for metric, limit in pointer["constraints"].items()]
    return [*limits, *(["safe raw probabilities"] if pointer["safe_only"] else [])]


def model_card(
    pointer: Mapping[str, Any],
    point: Mapping[str, Any],
    board: Mapping[str, Any],
    ingest: Mapping[str, Any],
    lengths: Mapping[str, Any] | None,
) -> str:
    """The card of the selected model.

    Parameters
    ----------
    pointer, point : `selected/model.json` and `selected/operating_point.json`.
    board, ingest : `reports/leaderboard.json` and `data/ingest.json`.
    lengths : how many messages are longer than an encoder reads, from `data/validation.json`; None if they are not counted.
    """
    name, labels, production = pointer["technique"], board["labels"], board["production_prior"]
    technique = board["techniques"][name]
    rarest = min(labels, key=lambda label: production[label])
    test = ingest["splits"]["test"]
    shown = shown_classes(labels, production, technique["operating_point"])
    return (
        environment()
        .get_template("card.md")
        .render(
            pointer=pointer,
            trainings=trainings(pointer),
            folders=folders(pointer),
            tied=board["selection"]["tied"],
            point=point,
            technique=technique,
            ingest=ingest,
            lengths=of_model(technique["max_length"], lengths),
            labels=labels,
            rarest=rarest,
            quality=quality(point, rarest),
            splits=split_counts(ingest, labels),
            test_set=split_in_words(ingest),
            shown=shown,
            many=len(shown) < len(labels),
            class_counts=[
                (label, [ingest["splits"][split][label] for split, _ in split_counts(ingest, labels)]) for label in labels
            ],
            priors=prior_rows(pointer, technique, {label: production[label] for label in shown}),
            rule=operating_point_rule(point),
            decision=decision_rule(point, labels),
            costs=[(true, [f"{point['costs'][true][predicted]:.4g}" for predicted in labels]) for true in labels],
            reached=operating_point_rows(point, shown),
            overall=[(metric_name(key), metric_cells(technique, key)) for key in OVERALL],
            per_class=[
                (label, metric_name(metric), metric_cells(technique, f"{label}.{metric}"))
                for label in shown
                for metric in PER_CLASS
            ],
            supports=[f"{test[label]:,} {class_name(label)}" for label in labels]
            if shown == labels
            else [f"{sum(test.values()):,}"],
            dropped=[f"{count:,} {reason.replace('_', ' ')}" for reason, count in ingest["dropped"].items() if count],
            metric=metric_name(pointer["metric"]),
            conditions=conditions(pointer),
            comparison=comparison(name, board, rarest),
            selection=board["selection"],
            reference=board["reference"],
            seeds=technique["seeds"],
            limits=limits(name, board, ingest, point),
        )
    )
