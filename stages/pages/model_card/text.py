"""Markdown text of the model card: escaping, and the sentences that depend on the results."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ballast.data.splitting import SPLITS
from ballast.evaluation.bootstrap import MINIMUM_SEEDS
from ballast.evaluation.operating_point import BUDGET_UNIT
from ballast.evaluation.selection import difference
from stages.pages.words import class_name, join_words, signed

# With fewer messages of a class, its interval is as wide as the differences between techniques.
FEW = 200
# Data with more classes is described by its totals, its rarest classes and those with the lowest F1.
MOST_CLASSES = 12


def markdown(value: Any) -> Any:
    """A text on one line that Markdown and HTML show literally. Other values are returned unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", html.escape(" ".join(value.split()), quote=False))


def sample_limits(board: Mapping[str, Any], ingest: Mapping[str, Any], n_seeds: int) -> list[str]:
    """Limits of the test set and the seeds."""
    test = ingest["splits"]["test"]
    few = sorted((label for label in board["labels"] if test[label] < FEW), key=lambda label: test[label])
    sentences = [
        f"The test split has only {test[label]} messages of {class_name(label)}. Another test split would give other"
        f" {class_name(label)} metrics."
        for label in few
    ]
    if len(few) > MOST_CLASSES:
        sentences = [
            f"The test split has fewer than {FEW} messages of {len(few)} of {len(test)} classes, and only {test[few[0]]} of"
            f" {class_name(few[0])}. Another test split would give other metrics of these classes."
        ]
    if n_seeds < MINIMUM_SEEDS:
        sentences.append(
            "The intervals cover the sampling of test messages, but not the variation between trainings (one seed)."
        )
    return sentences


def operating_point_limits(point: Mapping[str, Any]) -> list[str]:
    """Limits of what was fitted on the out-of-fold messages."""
    messages = point["fitted_on"]
    total = sum(messages.values())
    counts = (
        join_words([f"{count:,} {class_name(label)}" for label, count in messages.items()])
        if len(messages) <= MOST_CLASSES
        else f"{len(messages)} classes, at least {min(messages.values()):,} of each"
    )
    sentences = [f"The operating point and the measured prior are fitted on {total:,} out-of-fold messages ({counts})."]
    if point["rule"] == "budget":
        others, name = total - messages[point["label"]], class_name(point["label"])
        if point["limit"] * others < BUDGET_UNIT:
            sentences.append(
                f"There are {others:,} out-of-fold messages of classes other than {name}. One false alarm among them"
                f" is {BUDGET_UNIT / others:.0f} per {BUDGET_UNIT:,}, so they cannot distinguish a budget of {point['limit']:g}"
                " from zero."
            )
    if not point["met"]:
        sentences.append(f"No threshold met the required {point['rule']} out of fold.")
    return sentences


def limits(name: str, board: Mapping[str, Any], ingest: Mapping[str, Any], point: Mapping[str, Any]) -> list[str]:
    """Known limits of the model and of the numbers on the card."""
    technique = board["techniques"][name]
    sentences = [*sample_limits(board, ingest, len(technique["seeds"])), *operating_point_limits(point)]
    if technique["safe"] == "unsafe":
        sentences.append("Its raw probabilities do not fit the production prior. Use the deployed model, which corrects them.")
    if technique["technique"] == "majority":
        sentences.append("It ignores the text and always predicts the largest class.")
    sentences.append("It assigns one of its classes to every text, including texts in other languages and texts of no class.")
    return sentences


def comparison(name: str, board: Mapping[str, Any], rarest: str) -> list[str]:
    """Verdicts against the reference, for decisions at the operating point and for probabilities."""
    where = " at the operating point"
    subjects = ((f"{rarest}.f1", f"{rarest} F1{where}"), ("macro_f1", f"Macro F1{where}"), ("log_loss", "Log loss"))
    return [
        f"{subject}: {entry['verdict']} (difference from {board['reference']} {signed(entry['difference'])},"
        f" {signed(entry['low'])} to {signed(entry['high'])}, adjusted p {entry['p_adjusted']:.3f})"
        for metric, subject in subjects
        if (entry := difference(board["techniques"][name], metric))
    ]


def shown_classes(labels: list[str], production: Mapping[str, float], reached: Mapping[str, Any]) -> list[str]:
    """The classes that the tables of metrics show: all or, of many, the rarest and those with the lowest F1.

    >>> labels = [f"class {number:02d}" for number in range(50)]
    >>> production = {label: 0.01 + number for number, label in enumerate(labels)}
    >>> reached = {f"{label}.f1": {"value": production[label]} for label in labels}
    >>> shown_classes(labels, production, reached)
    ['class 00', 'class 01', 'class 02', 'class 03', 'class 04', 'class 05']
    """
    if len(labels) <= MOST_CLASSES:
        return labels
    half = MOST_CLASSES // 2
    rarest = sorted(labels, key=lambda label: production[label])[:half]
    hardest = sorted(labels, key=lambda label: float(reached[f"{label}.f1"]["value"]))[:half]
    return [label for label in labels if label in {*rarest, *hardest}]


def split_counts(ingest: Mapping[str, Any], labels: list[str]) -> list[tuple[str, list[int]]]:
    """(split, messages of each label) for each split with messages."""
    counts = [(split, [ingest["splits"][split][label] for label in labels]) for split in SPLITS]
    return [(split, of_split) for split, of_split in counts if any(of_split)]
