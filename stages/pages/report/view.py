"""What `reports/index.html` shows, worked out from the pipeline's results, and its rendering.

The template only puts into HTML what is computed here; whatever comes from data is escaped by Jinja2's autoescape.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ballast.data.splitting import SPLITS
from ballast.evaluation.bootstrap import MINIMUM_SEEDS
from ballast.evaluation.claims import MARGIN
from ballast.evaluation.metrics import LOSSES, higher_is_better
from ballast.evaluation.priors import UNINFORMATIVE_ODDS_RATIO
from ballast.evaluation.selection import best_of, difference, eligible, metric_of
from stages.pages.drawing import (
    CURVE_UNITS,
    LEAST_IN_BIN,
    Axis,
    corner_ticks,
    dots,
    joined,
    points,
    share_axis,
    shared_axis,
)
from stages.pages.report.comparison_view import differences, in_words, post_hoc, prior_grid
from stages.pages.report.errors_view import errors, perturbed
from stages.pages.report.operating_point_view import disagreements, operating_point
from stages.pages.report.search_view import searched
from stages.pages.report.studies_view import studies
from stages.store.params import Params
from stages.store.studies import Result as StudyResult

HERE = Path(__file__).parent
FAMILIES = ("corrected", "raw")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything the page shows.

    calibration : technique -> label -> calibration curve of the raw posteriors, first seed.
    errors, texts : what the techniques get wrong, by row of the messages; the texts of those rows, none if they are hidden.
    called : test messages that the selected technique gives each label.
    bounds : label -> least and most test messages of a draw from the production prior.
    """

    params: Params
    ingest: Mapping[str, Any]
    validation: Mapping[str, Any]
    board: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    calibration: Mapping[str, Any]
    probe: pd.DataFrame
    selected: Mapping[str, Any]
    perturbations: pd.DataFrame
    errors: Mapping[str, Any]
    texts: Mapping[int, str]
    model_card: str
    called: Mapping[str, int]
    bounds: Mapping[str, tuple[int, int]]
    claims: Sequence[Mapping[str, Any]]
    search: Mapping[str, Any]
    studies: Mapping[str, StudyResult | None]

    @property
    def labels(self) -> list[str]:
        """The K labels."""
        return list(self.board["labels"])

    @property
    def names(self) -> list[str]:
        """The techniques, in the order of params."""
        return [name for name in self.params.techniques if name in self.board["techniques"]]

    @property
    def rarest(self) -> str:
        """The label with the least production share: what the page shows first."""
        return min(self.labels, key=lambda label: self.board["production_prior"][label])

    @property
    def seed(self) -> str:
        """The first seed, of which the curves and tables of one training are."""
        return str(self.params.train.seeds[0])

    def fitted(self, name: str) -> Mapping[str, Any]:
        """The first seed's evaluation of a technique."""
        fitted: Mapping[str, Any] = self.evaluations[name]["seeds"][self.seed]
        return fitted


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric's column of the leaderboard: the key of the metric, its heading and what it means."""

    metric: str
    title: str
    meaning: str
    per_class: bool = True

    def key(self, label: str) -> str:
        """The metric's name for a label."""
        return f"{label}.{self.metric}" if self.per_class else self.metric

    @property
    def loss(self) -> bool:
        """Whether less is better."""
        return self.metric in LOSSES


COLUMNS = (
    Column(metric="f1", title="F1", meaning="Harmonic mean of precision and recall of the chosen class. 1 is perfect."),
    Column(metric="precision", title="Precision", meaning="Of the messages called this class, the share that is."),
    Column(metric="recall", title="Recall", meaning="Of the messages of this class, the share that is found."),
    Column(
        metric="pr_auc",
        title="PR AUC",
        meaning="Area under the precision-recall curve (average precision): how well the class is ranked.",
    ),
    Column(metric="macro_f1", title="Macro F1", meaning="Mean F1 of all classes, each counted alike.", per_class=False),
    Column(
        metric="accuracy",
        title="Accuracy",
        meaning="Share of all messages called right. Misleading for a rare class: see how little it notices.",
        per_class=False,
    ),
    Column(
        metric="log_loss",
        title="Log loss",
        meaning="How surprised the probabilities are by the truth. Less is better; no threshold is involved.",
        per_class=False,
    ),
    Column(
        metric="ece",
        title="ECE",
        meaning="Expected calibration error: by how much confidence and the share of right answers differ. Less is better.",
        per_class=False,
    ),
)


def magnitude(count: int) -> str:
    """A count that people can read: 22.7 M, 8.9 k, 412."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def percent(share: float) -> str:
    """A share in percent, with more digits near its ends."""
    distance = min(share, 1 - share)
    digits = 0 if distance <= 0 else 1 if distance >= 0.01 else 2
    return f"{100 * share:.{digits}f}%"


def words(items: Sequence[str]) -> str:
    """Items as in a sentence: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def metric_words(metric: str) -> str:
    """A metric's name as people say it: spam F1, macro F1, log loss."""
    return metric.replace(".", " ").replace("_", " ").replace(" f1", " F1").replace("pr auc", "PR AUC")


def role(results: Results, name: str) -> str:
    """What marks a technique: selected, reference or neither."""
    if name == results.selected["technique"]:
        return "selected"
    return "reference" if name == results.board["reference"] else "other"


def rule_in_words(results: Results) -> str:
    """By which rule the selected technique was chosen."""
    rule = results.params.select
    techniques, metric = results.board["techniques"], metric_words(rule.metric)
    sign = {key: "≥" if higher_is_better(key) else "≤" for key in rule.constraints}
    limits = [f"{metric_words(key)} {sign[key]} {limit:g}" for key, limit in rule.constraints.items()]
    limits += ["safe probabilities"] if rule.safe_only else []
    among = f" among those with {words(limits)}" if limits else ""
    kept = eligible(techniques, at=rule.at, constraints=rule.constraints, safe_only=rule.safe_only)
    _, best = best_of({name: techniques[name] for name in kept}, rule.metric, rule.at)
    kind = f"corrected {metric}" if rule.at == "corrected" else f"{metric} at its operating point"
    if metric_of(techniques[results.selected["technique"]], rule.metric, rule.at)["value"] == best:
        return f"it has the best {kind}{among}"
    return f"it is the smallest model within {rule.tolerance:g} of the best {kind} ({best:.3f}){among}"


def against_reference(results: Results) -> str:
    """By how much the selected technique differs from the reference where it was chosen, and who is shown to differ."""
    board, rule = results.board, results.params.select
    techniques, reference, chosen = board["techniques"], board["reference"], results.selected["technique"]
    metric = rule.metric
    found = {name: difference(techniques[name], metric, rule.at) for name in results.names if name != reference}
    if not found:
        return "there is one technique and nothing to compare it with."
    if not all(found.values()):
        metric = f"{results.rarest}.f1"
        found = {name: difference(techniques[name], metric, rule.at) for name in found}
    compared = {name: each for name, each in found.items() if each is not None}
    subject = f"{metric_words(metric)}{' there' if rule.at == 'operating_point' else ''}"
    own = compared.get(chosen)
    said = (
        f"its {subject} differs from that of {reference} by {own['difference']:+.3f}"
        f" ({results.params.evaluate.confidence:.0%} interval {own['low']:+.3f} to {own['high']:+.3f})."
        if own
        else f"it is the {reference} that all others are compared with."
    )
    return f"{said} {in_words(compared, reference, subject)}".strip()


def answer(results: Results) -> dict[str, str]:
    """The page's answer in a few sentences, with what may be concluded from it."""
    chosen, label, at = results.selected["technique"], results.rarest, results.params.select.at
    found = metric_of(results.board["techniques"][chosen], f"{label}.f1", at)
    support = results.ingest["splits"]["test"][label]
    seeds = len(results.params.train.seeds)
    few = f"{'One seed' if seeds == 1 else f'{seeds} seeds'}: differences between techniques are inconclusive."
    return {
        "technique": chosen,
        "rule": rule_in_words(results),
        "label": label,
        "where": "There its F1" if at == "operating_point" else "Its corrected F1",
        "f1": f"{found['value']:.3f}",
        "interval": f"{found['low']:.3f} to {found['high']:.3f}",
        "against": f"With {support:,} “{label}” messages in the test set, {against_reference(results)}",
        "seeds": few if seeds < MINIMUM_SEEDS else "",
    }


def leaderboard(results: Results) -> dict[str, Any]:
    """Rows for each label and family; a column's axis is the same in both families."""
    techniques = results.board["techniques"]
    tables, axes = [], []
    for at, label in enumerate(results.labels):
        scales = {
            column.metric: shared_axis(
                [techniques[name][family][column.key(label)] for name in results.names for family in FAMILIES],
                loss=column.loss,
                limit=np.inf if column.metric == "log_loss" else 1,
            )
            for column in COLUMNS
        }
        axes.append({"label": at, "marks": scales["f1"].marks(), "parts": max(1, len(scales["f1"].ticks) - 1)})
        for family in FAMILIES:
            rows = [leaderboard_row(results, name, label, family, scales) for name in results.names]
            rows.sort(key=lambda row: (-row["cells"][0]["value"], row["name"]))
            tables.append({"label": at, "family": family, "rows": rows})
    return {"columns": COLUMNS, "axes": axes, "tables": tables}


def leaderboard_row(results: Results, name: str, label: str, family: str, scales: Mapping[str, Axis]) -> dict[str, Any]:
    """One technique's cells for a label and family."""
    board = results.board["techniques"]
    each = board[name]
    reference = board[results.board["reference"]][family]
    cells = []
    for column in COLUMNS:
        estimate = each[family][column.key(label)]
        cells.append({"title": column.title, **estimate, **scales[column.metric].interval(estimate)})
    declared = each["declared_prior"]
    return {
        "at": results.names.index(name),
        "name": name,
        "technique": each["technique"],
        "role": role(results, name),
        "cells": cells,
        "guide": scales["f1"].at(reference[f"{label}.f1"]["value"]),
        "declared": None if declared is None else declared[label],
        "fitted": each["fitted_prior"][label]["value"],
        "weights": each["parameters"],
    }


def curves(results: Results) -> dict[str, Any]:
    """Precision-recall and calibration curves of every label."""
    panels = []
    for at, label in enumerate(results.labels):
        f1 = [results.board["techniques"][name]["corrected"][f"{label}.f1"]["value"] for name in results.names]
        # The corner that holds the better half of the techniques, with room around.
        corner = min(0.9, max(0.0, floor(10 * float(np.median(f1)) - 1) / 10))
        lines: dict[str, list[dict[str, Any]]] = {"precision_recall": [], "corrected": [], "raw": []}
        for index, name in enumerate(results.names):
            curve = results.evaluations[name]["curves"]
            common = {"at": index, "name": name, "role": role(results, name)}
            ranked = curve["precision_recall"][label]
            lines["precision_recall"].append({**common, "path": points(ranked["recall"], ranked["precision"]), "dots": []})
            calibrations = {"corrected": curve["calibration"][label], "raw": results.calibration[name][label]}
            for family, fine in calibrations.items():
                bins = joined(fine)
                lines[family].append({**common, "path": points(bins["mean_probability"], bins["share"]), "dots": dots(bins)})
        # Drawn last is on top: the reference, then the selected technique.
        for drawn in lines.values():
            drawn.sort(key=lambda line: ("other", "reference", "selected").index(line["role"]))
        panels.append({"label": at, "corner": corner, "corner_ticks": corner_ticks(corner), "lines": lines})
    return {"panels": panels, "units": CURVE_UNITS, "least": LEAST_IN_BIN}


def confusions(results: Results) -> list[dict[str, Any]]:
    """Each technique's confusion matrices of the first seed, coloured by the share of their row."""
    made = []
    for index, name in enumerate(results.names):
        matrices = []
        for family in FAMILIES:
            table = results.fitted(name)["confusion"][family]
            rows = [[{"count": count, "share": count / max(1, sum(row))} for count in row] for row in table]
            matrices.append({"family": family, "rows": rows})
        made.append({"at": index, "name": name, "role": role(results, name), "matrices": matrices})
    return made


def probe(results: Results) -> dict[str, Any]:
    """Probability of each label for each probe text and technique, mean over the seeds."""
    means = results.probe.groupby(["label", "text", "technique"])[list(FAMILIES)].mean()
    texts = list(results.probe["text"].unique())
    shown = texts if results.params.report.show_texts else [f"text {number}" for number in range(1, len(texts) + 1)]
    tables = [
        {
            "label": at,
            "family": family,
            "rows": [
                {"text": as_shown, "cells": [float(means.loc[(label, text, name), family]) for name in results.names]}
                for text, as_shown in zip(texts, shown, strict=True)
            ],
        }
        for at, label in enumerate(results.labels)
        for family in FAMILIES
    ]
    return {"tables": tables}


def priors(results: Results) -> list[dict[str, Any]]:
    """Declared, fitted and used effective prior of each technique, by label, on one log-odds axis per label."""
    made = []
    fits = {name: results.fitted(name) for name in results.names}
    for at, label in enumerate(results.labels):
        production = results.board["production_prior"][label]
        shares = [production, *(fit["fitted_prior"][label]["value"] for fit in fits.values())]
        shares += [fit["declared_prior"][label] for fit in fits.values() if fit["declared_prior"]]
        axis = share_axis(shares)
        rows = []
        for index, name in enumerate(results.names):
            fit = fits[name]
            declared = fit["declared_prior"] and fit["declared_prior"][label]
            rows.append(
                {
                    "at": index,
                    "name": name,
                    "role": role(results, name),
                    "declared": declared,
                    "declared_at": None if declared is None else axis.at(declared),
                    "fitted": fit["fitted_prior"][label],
                    "interval": axis.interval(fit["fitted_prior"][label]),
                    "used": "declared" if fit["effective_prior"] == fit["declared_prior"] else "measured",
                    "safe": results.board["techniques"][name]["safe"],
                    "temperature": fit["calibration"]["temperature"],
                }
            )
        made.append(
            {"label": at, "marks": axis.marks(), "production": production, "production_at": axis.at(production), "rows": rows}
        )
    return made


def data(results: Results) -> dict[str, Any]:
    """Class distribution, what was dropped, validation."""
    ingest = results.ingest
    labels, splits = ingest["labels"], ingest["splits"]
    messages = {split: sum(splits[split].values()) for split in SPLITS}
    total, largest = sum(labels.values()), max(labels.values())
    classes = [
        {
            "label": label,
            "rarest": label == results.rarest,
            "splits": [
                {
                    "name": split,
                    "count": splits[split][label],
                    "share": splits[split][label] / messages[split],
                    "width": round(100 * splits[split][label] / largest, 3),
                }
                for split in SPLITS
            ],
            "count": labels[label],
            "share": labels[label] / total,
            "production": results.board["production_prior"][label],
        }
        for label in sorted(results.labels, key=lambda label: -labels[label])
    ]
    expectations = results.validation["expectations"]
    return {
        "classes": classes,
        "splits": [{"name": split, "count": messages[split]} for split in SPLITS],
        "total": total,
        "largest_share": largest / total,
        "dropped": dict(sorted(ingest["dropped"].items(), key=lambda reason: -reason[1])),
        "expectations": sorted(expectations, key=lambda each: bool(each["success"])),
        "failed": sum(not each["success"] for each in expectations),
    }


def drift(results: Results) -> dict[str, Any]:
    """Our own test of the test set's labels and predictions against the production prior."""
    counts = results.ingest["splits"]["test"]
    rows = []
    for label in results.labels:
        least, most = results.bounds[label]
        rows.append(
            {
                "label": label,
                "share": results.board["production_prior"][label],
                "least": least,
                "most": most,
                "labels": counts[label],
                "labels_fit": least <= counts[label] <= most,
                "called": results.called[label],
                "called_fit": least <= results.called[label] <= most,
            }
        )
    return {
        "rows": rows,
        "messages": sum(counts.values()),
        "false_alarm": results.params.validate_.false_alarm,
        "labels_fit": all(row["labels_fit"] for row in rows),
        "called_fit": all(row["called_fit"] for row in rows),
        "by_construction": results.params.production.prior == "data",
    }


def majority(results: Results) -> dict[str, str] | None:
    """What the technique that always answers the largest class shows, if it is among the techniques."""
    for name in results.names:
        each = results.board["techniques"][name]
        if each["technique"] == "majority":
            accuracy, f1 = (each["raw"][key]["value"] for key in ("accuracy", f"{results.rarest}.f1"))
            return {"name": name, "accuracy": percent(accuracy), "f1": f"{f1:.3f}"}
    return None


def comparisons(results: Results) -> dict[str, Any]:
    """Differences from the reference, post hoc arms, other class shares and the claims, by label where they have one."""
    board, names = results.board, results.names
    shown = [("f1", "F1"), ("precision", "Precision"), ("recall", "Recall")]
    tables: dict[str, list[tuple[int, Any]]] = {"differences": [], "post_hoc": [], "grid": []}
    for at, label in enumerate(results.labels):
        metrics = [*((f"{label}.{metric}", title) for metric, title in shown), ("log_loss", "Log loss")]
        for family in FAMILIES:
            found = differences(board, names, metrics, family)
            tables["differences"].append((at, found and {**found, "family": family}))
        tables["post_hoc"].append((at, post_hoc(board, names, f"{label}.f1")))
        tables["grid"].append((at, prior_grid(results.evaluations, names, f"{label}.f1")))
    made: dict[str, Any] = {
        key: [{"label": at, **table} for at, table in each if table is not None] for key, each in tables.items()
    }
    return {**made, "post_hoc_metric": "F1 of the chosen class", "claims": results.claims, "margin": MARGIN}


def source(path: Path) -> Markup:
    """A stylesheet or script of ours, to stand in the page as it is."""
    return Markup(path.read_text(encoding="utf-8"))


def digest(script: str) -> str:
    """The sha256 by which the page's policy knows its script."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def environment(*folders: Path) -> Environment:
    """Templates of some folders; what they are given is escaped."""
    made = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": percent, "magnitude": magnitude, "metric_words": metric_words}
    return made


def page(results: Results) -> str:
    """The whole page."""
    script = source(HERE / "report.js")
    return (
        environment(HERE)
        .get_template("report.html")
        .render(
            results=results,
            params=results.params,
            ingest=results.ingest,
            labels=results.labels,
            first=results.labels.index(results.rarest),
            names=results.names,
            roles=[role(results, name) for name in results.names],
            answer=answer(results),
            confidence=f"{100 * results.params.evaluate.confidence:g}%",
            leaderboard=leaderboard(results),
            curves=curves(results),
            confusions=confusions(results),
            probe=probe(results),
            priors=priors(results),
            minimum_seeds=MINIMUM_SEEDS,
            uninformative_odds_ratio=UNINFORMATIVE_ODDS_RATIO,
            disagreements=disagreements(results.board, results.names),
            operating_point=operating_point(results.board, results.evaluations, results.names, results.selected),
            data=data(results),
            drift=drift(results),
            **comparisons(results),
            searched=searched(results.search),
            studies=studies(results.studies, results.board),
            majority=majority(results),
            errors=errors(results.errors, results.texts, results.names, results.labels, results.selected["technique"]),
            perturbed=perturbed(results.probe, results.perturbations, results.names, results.labels),
            style=source(HERE / "report.css"),
            script=script,
            script_digest=digest(script),
        )
    )
