"""The answer on the first screen of the report: what to deploy, how good it is, and what would improve it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.evaluation.bootstrap import MINIMUM_SEEDS
from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.selection import difference, metric_of
from ballast.io.printable import counted
from stages.pages.report.results import Results
from stages.pages.report.studies_view import data_or_technique
from stages.pages.words import join_words, metric_name, signed
from stages.store.ingested import validation_counts

# The study that varies the amount of training data.
MORE_DATA_STUDY = "learning_curve"
# More names than this are counted, not listed.
LISTED_NAMES = 4
# With fewer messages of the rarest class, its intervals are too wide to tell techniques apart.
FEW_MESSAGES = 50
ONE_SEED = "One seed: only large differences between techniques can be shown."


def selection_rule(results: Results) -> str:
    """Why the selected technique was chosen."""
    rule = results.params.select
    selection, metric = results.board["selection"], metric_name(rule.metric)
    sign = {key: "≥" if higher_is_better(key) else "≤" for key in rule.constraints}
    limits = [f"{metric_name(key)} {sign[key]} {limit:g}" for key, limit in rule.constraints.items()]
    limits += ["safe probabilities"] if rule.safe_only else []
    among = f", among the techniques with {join_words(limits)}" if limits else ""
    if selection["technique"] == selection["best"]:
        return f"it has the best {metric} on out-of-fold messages{among}"
    return (
        f"it is the cheapest technique within one standard error ({selection['standard_error']:.3f}) of {selection['best']},"
        f" which has the best {metric} on out-of-fold messages{among}"
    )


def name_list(names: list[str]) -> str:
    """A few names as an enumeration, with their verb; many names as a count."""
    if len(names) > LISTED_NAMES:
        return f"{len(names)} techniques have"
    return f"{join_words(names)} {'has' if len(names) == 1 else 'have'}"


def verdict_sentence(compared: Mapping[str, Mapping[str, Any]], reference: str, metric: str) -> str:
    """Which techniques differ significantly from the reference."""
    better, worse = ([name for name, entry in compared.items() if entry["verdict"] == kind] for kind in ("better", "worse"))
    sentence = f"{name_list(better) if better else 'No technique has'} a significantly better {metric} than {reference}"
    return f"{sentence}; {name_list(worse)} a significantly worse one." if worse else f"{sentence}."


def against_reference(results: Results) -> str:
    """The selected technique's difference from the reference, and the techniques that differ significantly."""
    board, rule = results.board, results.params.select
    techniques, reference, selected = board["techniques"], board["reference"], results.selected["technique"]
    others = [name for name in results.names if name != reference]
    if not others:
        return "There is no other technique to compare it with."
    metric = rule.metric
    differences = {name: difference(techniques[name], metric) for name in others}
    if not all(differences.values()):
        metric = f"{results.rarest}.f1"
        differences = {name: difference(techniques[name], metric) for name in others}
    compared = {name: entry for name, entry in differences.items() if entry is not None}
    own = compared.get(selected)
    sentence = "It is the reference. The other techniques are compared with it."
    if own:
        support = results.ingest["splits"]["test"][results.rarest]
        sentence = (
            f"With {support:,} “{results.rarest}” messages in the test set, its {metric_name(metric)} differs from that of"
            f" {reference} by {signed(own['difference'])} ({results.confidence} interval {signed(own['low'])}"
            f" to {signed(own['high'])})."
        )
    return f"{sentence} {verdict_sentence(compared, reference, metric_name(metric))}".strip()


def improvement(results: Results) -> list[dict[str, str]]:
    """What would improve the model, as sentences that may end with a command or a key of params.yaml."""
    sentences = []
    for name, study in results.studies.items():
        if study is not None:
            sentences += [{"text": text, "code": ""} for text in data_or_technique(study, results.board)]
        elif name == MORE_DATA_STUDY:
            sentences.append({"text": "To see whether more data would help, run", "code": f"make study NAME={name}"})
    label = results.rarest
    test = results.ingest["splits"]["test"][label]
    validation = validation_counts(results.ingest, results.params.train.seeds)[label]
    if min(test, validation) < FEW_MESSAGES:
        text = f"Label more {label} messages: the test set has {test:,} and validation {validation:,}, so the interval is wide."
        sentences.append({"text": text, "code": ""})
    if results.n_seeds < MINIMUM_SEEDS:
        text = f"To compare techniques reliably, use at least {MINIMUM_SEEDS} seeds in"
        sentences.append({"text": text, "code": "train.seeds"})
    return sentences


def answer(results: Results) -> dict[str, Any]:
    """The page's answer in a few sentences, with its uncertainty."""
    selected, label = results.selected["technique"], results.rarest
    f1 = metric_of(results.board["techniques"][selected], f"{label}.f1")
    return {
        "technique": selected,
        "rule": selection_rule(results),
        "label": label,
        "where": "At its operating point",
        "f1": f"{f1['value']:.3f}",
        "support": counted(results.ingest["splits"]["test"][label], "test message"),
        "interval": f"{f1['low']:.3f} to {f1['high']:.3f}",
        "against": against_reference(results),
        "seeds": ONE_SEED if results.n_seeds < MINIMUM_SEEDS else "",
        "improve": improvement(results),
    }
