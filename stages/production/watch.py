"""Watch a scored window: its class prior, whether label shift explains it, and what to do.

Reads `production/scored/<window>.parquet`, the version that scored it, and `production/feedback.parquet`; writes
`production/watch/<window>.json`, its Evidently page and the time line over all windows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from scipy.special import softmax

from ballast.cli import parser, run
from ballast.data.descriptors import NAMES, descriptors
from ballast.evaluation.calibration import Calibration
from ballast.exceptions import UserError
from ballast.monitoring.decision import Feedback, Policy, WindowDecision, assess_window, recall_drops
from ballast.monitoring.label_shift import ScoredMessages, most_atypical
from ballast.monitoring.quantification import adjusted_count, classify_and_count, emq, posterior_conditionals
from stages.pages.evidently import with_shares
from stages.pages.watch.evidently import Columns, window_page
from stages.pages.watch.view import timeline_page
from stages.production.deployed import REFERENCE, VOCABULARY, Version, indices
from stages.production.feedback import read_feedback
from stages.production.prune import prune_windows
from stages.production.windows import WINDOW, quoted_name, read_window, version_of
from stages.store.checked import read_frame, read_table
from stages.store.files import locked, read_json, replaced, write_json
from stages.store.groups import fingerprints_of
from stages.store.params import Params, read_params
from stages.store.production_sections import Production
from stages.store.project import PROJECT

# Probabilities that are 0 in floating point still have a logarithm.
LEAST = 1e-300
# Evidently's own.
EVIDENTLY_THRESHOLD = 0.05


def reference_of(version: Version, table: pd.DataFrame) -> ScoredMessages:
    """The labelled held-out messages as the deployed model sees them."""
    logits = table[[f"logit_{label}" for label in version.labels]].to_numpy(dtype=np.float64)
    return ScoredMessages(
        posteriors=version.posteriors(logits),
        groups=table["group"].to_numpy(),
        descriptors={name: table[name].to_numpy() for name in NAMES},
    )


def window_of(version: Version, table: pd.DataFrame) -> ScoredMessages:
    """A window as the deployed model sees it."""
    found = descriptors(table["text"].tolist(), load_file(version.folder / VOCABULARY)["words"])
    return ScoredMessages(
        posteriors=table[[f"p_{label}" for label in version.labels]].to_numpy(dtype=np.float64),
        groups=table["group"].to_numpy(),
        descriptors={name: found[name].to_numpy() for name in NAMES},
    )


def calibrated(version: Version, posteriors: np.ndarray) -> np.ndarray:
    """Posteriors (n, K) on the class shares of validation, after bias-corrected temperature scaling."""
    bias = np.array([version.manifest["calibration"]["bias"][label] for label in version.labels])
    calibration = Calibration(temperature=version.manifest["calibration"]["temperature"], bias=bias)
    logits = np.log(np.maximum(posteriors, LEAST)) - np.log(version.production_prior) + np.log(version.effective_prior)
    return softmax(calibration.apply(logits), axis=1)


def named(values: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Numbers (K,) by label."""
    return dict(zip(labels, map(float, values), strict=True))


def shares(classes: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Shares of the classes (n,), n > 0."""
    return named(np.bincount(classes, minlength=len(labels)) / len(classes), labels)


def asked_for() -> set[str]:
    """The ids of all messages that a watch asked to be labelled."""
    # Under the lock of the page that the windows are deleted under.
    with locked(PROJECT.watch / "index.html"):
        return {message["id"] for path in PROJECT.watch.glob("*.json") for message in read_json(path)["to_label"]}


def trained_with(version: Version, texts: pd.Series) -> np.ndarray:
    """Which texts (n,) were feedback that a version was trained with, or tested on."""
    return np.isin(fingerprints_of(texts), load_file(version.folder / VOCABULARY)["feedback"])


def feedback_metrics(rows: pd.DataFrame, labels: list[str]) -> dict[str, Any] | None:
    """Precision, recall and F1 of each class on the labelled messages of a window; None without any."""
    rows = rows[rows["label"].isin(labels)]
    if rows.empty:
        return None
    classes = {}
    for label in labels:
        true, called = rows["label"] == label, rows["called"] == label
        hits, support, assigned = int((true & called).sum()), int(true.sum()), int(called.sum())
        metrics = {"precision": (hits, assigned), "recall": (hits, support), "f1": (2 * hits, assigned + support)}
        values = {name: above / below if below else None for name, (above, below) in metrics.items()}
        classes[label] = {**values, "support": support}
    return {"n": len(rows), "share": shares(indices(rows["label"], labels), labels), "classes": classes}


def policy_of(production: Production) -> Policy:
    """When to act, as params say."""
    watch, retrain = production.watch, production.retrain
    return Policy(
        confidence=watch.confidence,
        false_alarm=watch.false_alarm,
        negligible=watch.negligible,
        tolerance=watch.tolerance,
        minimum_labels=retrain.minimum_labels,
        margin=retrain.margin,
    )


def told(verdict: WindowDecision, policy: Policy, labels: list[str]) -> dict[str, Any]:
    """The verdict as the file has it."""
    estimate = verdict.estimate
    prior = dict.fromkeys(("estimated_prior", "low", "high"))
    if estimate is not None:
        prior = {
            "estimated_prior": named(estimate.prior, labels),
            "low": named(estimate.low, labels),
            "high": named(estimate.high, labels),
        }
    return {
        **prior,
        "decision": verdict.decision,
        "reasons": verdict.reasons,
        "assumption_holds": not verdict.unexplained,
        "findings": [
            {"name": each.name, "p": each.p, "effect": each.effect, "rejects": each.name in verdict.unexplained}
            for each in verdict.findings
        ],
    }


def estimates(
    version: Version, reference: ScoredMessages, classes: np.ndarray, validation: np.ndarray, window: ScoredMessages
) -> dict[str, dict[str, float]] | None:
    """The window's class shares by each method, classify-and-count among them; None without a message."""
    if len(window.groups) == 0:
        return None
    conditionals = posterior_conditionals(reference.posteriors, classes, reference.groups)
    of_validation = np.bincount(classes[validation], minlength=len(version.labels)) / validation.sum()
    found = {
        "classify_and_count": classify_and_count(window.posteriors),
        "emq": emq(calibrated(version, window.posteriors), of_validation),
        "pacc": adjusted_count(window.posteriors, conditionals),
    }
    counted = shares(version.decisions(window.posteriors), version.labels)
    return {"decided_and_counted": counted} | {name: named(each, version.labels) for name, each in found.items()}


def evidently_page(
    result: Mapping[str, Any],
    version: Version,
    reference: ScoredMessages,
    classes: np.ndarray,
    window: ScoredMessages,
    most: int,
) -> str:
    """Evidently's page of a window, of which at most so many messages are drawn, against the production shares."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(window.groups))[:most]

    def columns(messages: ScoredMessages, rows: np.ndarray) -> Columns:
        return Columns(
            decided=version.decisions(messages.posteriors[rows]),
            probability=messages.posteriors[rows],
            descriptors={name: values[rows] for name, values in messages.descriptors.items()},
        )

    drawn = with_shares(classes, version.production_prior, most, rng)
    return window_page(result, columns(reference, drawn), columns(window, rows), EVIDENTLY_THRESHOLD)


def write_timeline(params: Params, window: str) -> list[str]:
    """The page over all windows, with the feedback that has come for them since they were watched.

    Deletes the oldest windows first, but for the one that was just watched; returns their names.
    """
    feedback = read_feedback()
    with locked(PROJECT.watch / "index.html"):
        # Under the lock, so that nobody reads a window that is being deleted.
        gone = prune_windows(params.production.keep.windows, window)
        windows = [read_json(path) for path in sorted(PROJECT.watch.glob("*.json"))]
        for each in windows:
            each["feedback"] = feedback_metrics(feedback[feedback["window"] == each["window"]], each["labels"])
        texts = texts_of(windows) if params.report.show_texts else {}
        page = timeline_page(windows, texts, params.production.watch.confidence)
        with replaced(PROJECT.watch / "index.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
    return gone


def texts_of(windows: list[dict[str, Any]]) -> dict[str, str]:
    """Texts by id of the messages that the last window asks to be labelled."""
    asking = [each for each in windows if each["to_label"] and (PROJECT.scored / f"{each['window']}.parquet").is_file()]
    if not asking:
        return {}
    path, ids = PROJECT.scored / f"{asking[-1]['window']}.parquet", [message["id"] for message in asking[-1]["to_label"]]
    try:
        table = read_table(path, ["id", "text"], [("id", "in", ids)])
    except UserError as error:
        # The page of all windows does without another one's texts.
        print(f"watch: its texts cannot be read: {error}", file=sys.stderr)
        return {}
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def main(window: str) -> None:
    params = read_params()
    policy = policy_of(params.production)
    if not WINDOW.fullmatch(window):
        raise UserError(f"--window is {quoted_name(window)}; expected the name of a window in {PROJECT.scored}")
    with locked(PROJECT.watch / f"{window}.html"), locked(PROJECT.watch / f"{window}.json"):
        table, noted = read_window(window)
        version = version_of(window, noted)
        labels = version.labels
        known = read_frame(version.folder / REFERENCE, required=False)
        classes = indices(known["label"], labels)
        reference, scored = reference_of(version, known), window_of(version, table)
        decided, called = version.decisions(reference.posteriors), reference.posteriors.argmax(axis=1)

        feedback = read_feedback()
        # Of other versions with the same weights the operating point, and so the recall, is another.
        fed = feedback[(feedback["model"] == version.name) & feedback["label"].isin(labels)]
        # Labels that were asked for are of the oddest messages, and the messages of a group are right or wrong together.
        fed = fed[~fed["id"].isin(asked_for())].drop_duplicates("group")
        once = ~known["group"].duplicated().to_numpy()
        drops = recall_drops(
            classes[once], decided[once], indices(fed["label"], labels), indices(fed["called"], labels), policy, len(labels)
        )
        # The rows that came after those that the deployed model was trained with.
        new = feedback[feedback["new"] & ~trained_with(version, feedback["text"]) & feedback["label"].isin(labels)]
        new_labels = np.bincount(indices(new["label"], labels), minlength=len(labels))
        verdict = assess_window(
            reference,
            classes,
            scored,
            version.production_prior,
            policy,
            labels=labels,
            feedback=Feedback(new_labels=new_labels, drops=drops),
            deviation=np.array([version.manifest.get("prior_deviation", {}).get(label, 0.0) for label in labels]),
        )
        rows = np.empty(0, dtype=int)
        if verdict.decision == "investigate" and len(table):
            rows = most_atypical(reference, scored, params.production.watch.messages)
        result = {
            "window": window,
            "n": len(table),
            "confidence": policy.confidence,
            "model": version.name,
            "labels": labels,
            "quarantined": noted["quarantined"],
            "reference_prior": named(version.production_prior, labels),
            "methods": estimates(version, reference, classes, (known["split"] == "validation").to_numpy(), scored),
            "rates": {label: shares(called[classes == at], labels) for at, label in enumerate(labels)},
            "new_labels": dict(zip(labels, new_labels.tolist(), strict=True)),
            "feedback": feedback_metrics(feedback[feedback["window"] == window], labels),
            "to_label": table.iloc[rows][["id", "group"]].to_dict("records"),
            "recall_fell": [labels[each.label] for each in drops],
            **told(verdict, policy, labels),
        }
        page = evidently_page(result, version, reference, classes, scored, params.report.sample)
        with replaced(PROJECT.watch / f"{window}.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        write_json(PROJECT.watch / f"{window}.json", result)
    gone = write_timeline(params, window)
    print(f"watch: {window}: {verdict.decision}: {'; '.join(verdict.reasons)}", file=sys.stderr)
    if gone:
        print(f"watch: {len(gone)} older windows are deleted (production.keep.windows): {', '.join(gone)}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", required=True, metavar="NAME", help="a scored window")
    run(main, arguments.parse_args())
