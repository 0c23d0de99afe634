"""What the model card says, worked out from the pipeline's results, and its rendering as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ballast.data.splitting import SPLITS
from ballast.evaluation.bootstrap import MINIMUM_SEEDS
from ballast.evaluation.comparison import seeds_in_words
from ballast.evaluation.operating_point import BUDGET_UNIT, cost_matrix, threshold
from ballast.evaluation.selection import as_inequality, difference

HERE = Path(__file__).parent
FAMILIES = ("raw", "corrected", "operating_point")
OVERALL = ("macro_f1", "accuracy", "balanced_accuracy", "mcc", "log_loss", "brier", "ece")
PER_CLASS = ("precision", "recall", "f1", "false_positive_rate", "pr_auc", "mean_probability")
NAMES = {"f1": "F1", "macro_f1": "macro F1", "mcc": "MCC", "ece": "ECE", "pr_auc": "PR AUC", "brier": "Brier score"}
# With fewer messages of a class its interval is as wide as the differences between techniques.
FEW = 200


def markdown(value: Any) -> Any:
    """Text of the data in one line that Markdown and HTML only show; what is no text stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", html.escape(" ".join(value.split()), quote=False))


def metric_name(metric: str) -> str:
    """A metric's name as people say it: macro F1, recall of spam."""
    label, _, name = metric.rpartition(".")
    said = NAMES.get(name, name.replace("_", " "))
    return f"{said} of {label}" if label else said


def with_interval(found: Mapping[str, float] | None) -> str:
    """A value and its interval."""
    return "" if found is None else f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def rule_in_words(point: Mapping[str, Any]) -> str:
    """What an operating point was chosen for: point as `evaluate` writes it."""
    label, limit = point["label"], "" if point["limit"] is None else f"{point['limit']:g}"
    said: str = {
        "f1": f"the highest F1 of {label} on validation",
        "macro_f1": "the highest macro F1 on validation",
        "cost": "the least expected cost, by the costs that were given",
        "precision": f"the highest recall of {label} whose precision on validation is at least {limit}",
        "budget": f"the highest recall of {label} that gives it at most {limit} of {BUDGET_UNIT:,}"
        " other messages of validation",
    }[point["rule"]]
    return said if point["met"] else f"{said}; nothing keeps that there, so it is the point of highest precision"


def decision_in_words(point: Mapping[str, Any], labels: Sequence[str]) -> str:
    """How a message's class follows from its probabilities."""
    costs = cost_matrix(point["costs"], labels)
    label = point["label"] or labels[-1]
    if len(labels) == 2:
        cut = threshold(costs, labels.index(label))
        return f"a message is called {label} when its probability of {label} is above {cut:.3g}"
    if point["label"] is not None:
        weight = costs[labels.index(label)].max()
        return f"a message is called {label} when its probability of {label}, times {weight:.3g}, is the highest of all"
    return "a message is called the class whose expected cost is the least"


def limits(name: str, board: Mapping[str, Any], ingest: Mapping[str, Any], point: Mapping[str, Any]) -> list[str]:
    """What the numbers of the card do not show."""
    technique, splits = board["techniques"][name], ingest["splits"]
    said = []
    for label in sorted(board["labels"], key=lambda each: splits["test"][each]):
        if splits["test"][label] < FEW:
            said.append(
                f"The test split has {splits['test'][label]} messages of {label}: another such split would move its numbers."
            )
    if len(board["techniques"]) > 1:
        said.append(
            f"It is the best of {len(board['techniques'])} techniques on these test messages, so its own numbers lean upwards;"
            " a fresh sample would show by how much."
        )
    seeds = len(technique["seeds"])
    if seeds < MINIMUM_SEEDS:
        said.append(f"The intervals cover the choice of test messages, not the luck of a training ({seeds_in_words(seeds)}).")
    on = splits["validation"]
    said.append(
        f"The operating point and the measured prior rest on {sum(on.values()):,} messages of validation"
        f" ({', '.join(f'{on[label]:,} {label}' for label in board['labels'])})."
    )
    if point["rule"] == "budget":
        others = sum(on.values()) - on[point["label"]]
        if point["limit"] * others < BUDGET_UNIT:
            said.append(
                f"Validation has {others:,} messages that are not {point['label']}: one of them is {BUDGET_UNIT / others:.0f}"
                f" of {BUDGET_UNIT:,}, so a budget of {point['limit']:g} cannot be told from none there."
            )
    if not point["met"]:
        said.append(f"No threshold kept the {point['rule']} that was asked for on validation.")
    if technique["safe"] is False:
        said.append("Its raw probabilities are wrong for the production prior: correct them, as shown below.")
    if technique["technique"] == "majority":
        said.append("It never looks at a message.")
    said.append("It answers one of its classes to any text, in any language, also to one that belongs to none of them.")
    return said


def comparison(name: str, board: Mapping[str, Any], rarest: str, at: str) -> list[str]:
    """Each verdict against the reference in words, of decisions `at` the operating point or corrected, and of probabilities."""
    where = " at the operating point" if at == "operating_point" else ""
    subjects = ((f"{rarest}.f1", f"F1 of {rarest}{where}"), ("macro_f1", f"Macro F1{where}"), ("log_loss", "Log loss"))
    return [
        f"{subject}: {each['verdict']} (difference from {board['reference']} {each['difference']:+.3f},"
        f" {each['low']:+.3f} to {each['high']:+.3f}, adjusted p {each['p_adjusted']:.3f})"
        for metric, subject in subjects
        if (each := difference(board["techniques"][name], metric, at))
    ]


def model_card(
    pointer: Mapping[str, Any], point: Mapping[str, Any], board: Mapping[str, Any], ingest: Mapping[str, Any]
) -> str:
    """The card of the selected model.

    Parameters
    ----------
    pointer, point : `selected/model.json` and `selected/operating_point.json`.
    board, ingest : `reports/leaderboard.json` and `data/ingest.json`.
    """
    name, labels = pointer["technique"], board["labels"]
    technique, splits = board["techniques"][name], ingest["splits"]
    rarest = min(labels, key=lambda label: board["production_prior"][label])
    declared = technique["declared_prior"]
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=False,
        finalize=markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = Markup
    return environment.get_template("card.md").render(
        pointer=pointer,
        point=point,
        technique=technique,
        ingest=ingest,
        labels=labels,
        rarest=rarest,
        splits=[(split, [splits[split][label] for label in labels]) for split in SPLITS],
        priors=[
            (
                label,
                "none" if declared is None else f"{declared[label]:.3f}",
                with_interval(technique["fitted_prior"][label]),
                f"{pointer['effective_prior'][label]:.3f}",
                f"{board['production_prior'][label]:.3f}",
            )
            for label in labels
        ],
        rule=rule_in_words(point),
        decision=decision_in_words(point, labels),
        costs=[(true, [f"{point['costs'][true][predicted]:.4g}" for predicted in labels]) for true in labels],
        reached=[
            (label, metric_name(metric), f"{point['validation'][f'{label}.{metric}']:.3f}", with_interval(found))
            for label in labels
            for metric in ("precision", "recall", "f1", "false_positive_rate")
            if (found := point["test"][f"{label}.{metric}"])
        ],
        overall=[(metric_name(m), [with_interval(technique[family].get(m)) for family in FAMILIES]) for m in OVERALL],
        per_class=[
            (label, metric_name(m), [with_interval(technique[family].get(f"{label}.{m}")) for family in FAMILIES])
            for label in labels
            for m in PER_CLASS
        ],
        supports=[f"{splits['test'][label]:,} {label}" for label in labels],
        dropped=[f"{count:,} {reason.replace('_', ' ')}" for reason, count in ingest["dropped"].items()],
        metric=metric_name(pointer["metric"]),
        conditions=[
            *(as_inequality(metric, limit) for metric, limit in pointer["constraints"].items()),
            *(["raw probabilities that are safe"] if pointer["safe_only"] else []),
        ],
        comparison=comparison(name, board, rarest, pointer["at"]),
        reference=board["reference"],
        seeds=technique["seeds"],
        limits=limits(name, board, ingest, point),
    )
