"""Watch a scored window: estimate its class prior and its quality, test for label shift, and decide what to do.

Reads `production/scored/<window>.parquet`, the version that scored it, its shadow, and `production/feedback.parquet`. Writes
`production/watch/<window>.json`, the Evidently page of the window, the messages to label, and the time line over all windows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from scipy.special import softmax

from ballast.cli import parser, run
from ballast.data.descriptors import NAMES, descriptors
from ballast.evaluation.calibration import Calibration
from ballast.evaluation.priors import correct_prior
from ballast.exceptions import UserError
from ballast.monitoring.decision import Feedback, Policy, RecallDrop, WindowDecision, assess_window
from ballast.monitoring.floors import metrics_below, with_floors
from ballast.monitoring.label_shift import ScoredMessages, most_atypical
from ballast.monitoring.labelled_quality import with_held_out_mistakes
from ballast.monitoring.quantification import adjusted_count, classify_and_count, emq, posterior_conditionals
from ballast.monitoring.recall_drops import recall_drops, recall_drops_of_queue
from stages.pages.evidently import with_shares
from stages.pages.watch.evidently import Columns, window_page
from stages.production.deployed import VOCABULARY, Version, indices
from stages.production.feedback import read_feedback
from stages.production.labelled import add_labelled_performance, decided_by_labels, labelled_sample, other_windows
from stages.production.labelling import Row, drawn_before, ids_to_label, new_queue, page_sha256, write_queue
from stages.production.performance import floors_of, performance_as_json, performance_of, protocol_of
from stages.production.reference import Reference, read_reference
from stages.production.shadow_comparison import JudgedWindow, shadow_of
from stages.production.timeline import write_timeline
from stages.production.watch_results import by_label, decision_as_json, feedback_metrics, policy_of, shares
from stages.production.windows import WINDOW, quoted_name, read_window, version_of
from stages.store.files import locked, replaced, write_json
from stages.store.groups import fingerprints_of
from stages.store.params import Params, read_params
from stages.store.project import PROJECT

# Keeps the logarithm finite if a probability underflows to 0.
LEAST = 1e-300
# Evidently's default.
EVIDENTLY_THRESHOLD = 0.05


def window_of(version: Version, table: pd.DataFrame) -> ScoredMessages:
    """The messages of a window with the scores of the deployed version."""
    values = descriptors(table["text"].tolist(), load_file(version.folder / VOCABULARY)["words"])
    return ScoredMessages(
        posteriors=table[[f"p_{label}" for label in version.labels]].to_numpy(dtype=np.float64),
        groups=table["group"].to_numpy(),
        descriptors={name: values[name].to_numpy() for name in NAMES},
    )


def calibrated(version: Version, posteriors: np.ndarray) -> np.ndarray:
    """Posteriors (n, K) on the class shares of the out-of-fold messages, after bias-corrected temperature scaling."""
    bias = np.array([version.manifest["calibration"]["bias"][label] for label in version.labels])
    calibration = Calibration(temperature=version.manifest["calibration"]["temperature"], bias=bias)
    logits = np.log(np.maximum(posteriors, LEAST)) - np.log(version.production_prior) + np.log(version.effective_prior)
    return softmax(calibration.apply(logits), axis=1)


def fallen_recall(
    version: Version, reference: Reference, feedback: pd.DataFrame, windows: Sequence[Mapping[str, Any]], policy: Policy
) -> list[RecallDrop]:
    """The classes whose recall by labels fell below that on the held-out messages.

    windows : as the watch writes them, with the messages that each asked to label.
    """
    labels, messages = version.labels, reference.messages
    # Another version with the same weights has another operating point, and so another recall.
    rows = feedback[(feedback["model"] == version.name) & feedback["label"].isin(labels)]
    # Messages that a window asked to label are no random sample. Messages of one group are right or wrong together.
    rows = rows[~rows["id"].isin(ids_to_label())].drop_duplicates("group")
    once = ~pd.Series(messages.groups).duplicated().to_numpy()
    decided = version.decisions(messages.posteriors)
    drops = recall_drops(
        reference.classes[once],
        decided[once],
        indices(rows["label"], labels),
        indices(rows["called"], labels),
        policy,
        len(labels),
    )
    of_queue = labelled_sample(version.name, labels, windows, feedback)
    if of_queue is not None:
        drops += recall_drops_of_queue(reference.classes, decided, messages.groups, of_queue[0], policy)
    return drops


def new_label_counts(version: Version, feedback: pd.DataFrame) -> np.ndarray:
    """Labelled messages of each class (K,) that a version was neither trained with nor tested on."""
    trained_with = np.isin(fingerprints_of(feedback["text"]), load_file(version.folder / VOCABULARY)["feedback"])
    rows = feedback[feedback["new"] & ~trained_with & feedback["label"].isin(version.labels)]
    return np.bincount(indices(rows["label"], version.labels), minlength=len(version.labels))


def estimates(version: Version, reference: Reference, window: ScoredMessages) -> dict[str, dict[str, float]] | None:
    """The class shares of a window by each method of quantification; None for a window without messages."""
    if len(window.groups) == 0:
        return None
    conditionals = posterior_conditionals(reference.messages.posteriors, reference.classes, reference.messages.groups)
    estimated = {
        "classify_and_count": classify_and_count(window.posteriors),
        "emq": emq(calibrated(version, window.posteriors), reference.validation_shares),
        "pacc": adjusted_count(window.posteriors, conditionals),
    }
    counted = shares(version.decisions(window.posteriors), version.labels)
    return {"decided_and_counted": counted} | {name: by_label(prior, version.labels) for name, prior in estimated.items()}


def evidently_page(result: Mapping[str, Any], version: Version, reference: Reference, window: ScoredMessages, most: int) -> str:
    """Evidently's page of a window against held-out messages on the production prior, with at most `most` messages each."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(window.groups))[:most]

    def columns(messages: ScoredMessages, rows: np.ndarray) -> Columns:
        return Columns(
            decided=version.decisions(messages.posteriors[rows]),
            probability=messages.posteriors[rows],
            descriptors={name: values[rows] for name, values in messages.descriptors.items()},
        )

    drawn = with_shares(reference.classes, version.production_prior, most, rng)
    return window_page(result, columns(reference.messages, drawn), columns(window, rows), EVIDENTLY_THRESHOLD)


def queue_of(
    window: str,
    table: pd.DataFrame,
    scored: ScoredMessages,
    reference: Reference,
    version: Version,
    verdict: WindowDecision,
    params: Params,
) -> list[Row]:
    """The messages of a window to label: those of an earlier watch, or a new draw, which is then written for people."""
    rows = drawn_before(window, table, version)
    again = not rows
    if again and len(table):
        unusual = np.empty(0, dtype=int)
        if verdict.decision == "investigate":
            unusual = most_atypical(reference.messages, scored, params.production.watch.messages)
        prior = version.production_prior if verdict.estimate is None else verdict.estimate.prior
        held_out = reference.messages.posteriors
        logits = np.log(np.maximum(calibrated(version, scored.posteriors), LEAST))
        posteriors = softmax(correct_prior(logits, reference.validation_shares, prior), axis=1)
        posteriors = with_held_out_mistakes(
            posteriors,
            version.decisions(scored.posteriors),
            prior,
            classes=reference.classes,
            decisions=version.decisions(held_out),
            held_out=calibrated(version, held_out),
        )
        rows = new_queue(window, table, posteriors, version, read_feedback(), params.production.labelling, unusual)
    write_queue(window, rows, dict(zip(table["id"], table["text"], strict=True)), version.labels, again=again)
    return rows


def watched(window: str, params: Params) -> tuple[dict[str, Any], str]:
    """The result of a window, and its Evidently page. Writes the messages to label."""
    policy = policy_of(params.production)
    table, metadata = read_window(window)
    version = version_of(window, metadata)
    labels, protocol, floors = version.labels, protocol_of(version, params), floors_of(version, params)
    reference, scored, feedback = read_reference(version), window_of(version, table), read_feedback()
    others = other_windows(window)
    before = {"window": window, "model": version.name, "to_label": drawn_before(window, table, version)}
    drops = fallen_recall(version, reference, feedback, [*others, before], policy)
    new_labels = new_label_counts(version, feedback)
    labelled = Feedback(new_labels=new_labels, drops=drops)
    verdict = assess_window(
        reference.messages,
        reference.classes,
        scored,
        version.production_prior,
        policy,
        labels=labels,
        feedback=labelled,
        deviation=np.array([version.manifest.get("prior_deviation", {}).get(label, 0.0) for label in labels]),
    )
    estimated = performance_of(version, reference, scored, verdict, protocol)
    judged = JudgedWindow(name=window, table=table, scored=scored, version=version, reference=reference, verdict=verdict)
    predicted = reference.messages.posteriors.argmax(axis=1)
    result = {
        "window": window,
        "n": len(table),
        "confidence": policy.confidence,
        "model": version.name,
        "labels": labels,
        "quarantined": metadata["quarantined"],
        "reference_prior": by_label(version.production_prior, labels),
        "methods": estimates(version, reference, scored),
        "rates": {label: shares(predicted[reference.classes == at], labels) for at, label in enumerate(labels)},
        "new_labels": dict(zip(labels, new_labels.tolist(), strict=True)),
        "feedback": feedback_metrics(feedback[feedback["window"] == window], labels),
        "to_label": queue_of(window, table, scored, reference, version, verdict, params),
        "page_sha256": page_sha256(window),
        "recall_fell": [label for at, label in enumerate(labels) if any(drop.label == at for drop in drops)],
        "estimated_performance": performance_as_json(estimated, verdict.withheld, []),
        "shadow": shadow_of(metadata.get("shadow"), judged, protocol, policy),
        **decision_as_json(verdict, labels),
    }
    add_labelled_performance(result, [*others, result], feedback)
    below = metrics_below(estimated or {}, floors, decided_by_labels(result))
    result["estimated_performance"] = performance_as_json(estimated, verdict.withheld, below)
    result |= decision_as_json(with_floors(verdict, below, labelled, policy, labels), labels)
    return result, evidently_page(result, version, reference, scored, params.report.sample)


def main(window: str) -> None:
    params = read_params()
    if not WINDOW.fullmatch(window):
        raise UserError(f"--window is {quoted_name(window)}; expected the name of a window in {PROJECT.scored}")
    page_path, result_path = (PROJECT.watch / f"{window}.{ending}" for ending in ("html", "json"))
    with locked(page_path), locked(result_path):
        result, page = watched(window, params)
        with replaced(page_path) as temporary:
            temporary.write_text(page, encoding="utf-8")
        write_json(result_path, result)
    deleted = write_timeline(params, window)
    print(f"watch: {window}: {result['decision']}: {'; '.join(result['reasons'])}", file=sys.stderr)
    if result["shadow"] is not None:
        print(f"watch: {window}: {result['shadow']['summary']}", file=sys.stderr)
    if deleted:
        names = ", ".join(deleted)
        print(f"watch: {len(deleted)} older windows are deleted (production.keep.windows): {names}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--window", required=True, metavar="NAME", help="a scored window")
    run(main, arguments.parse_args())
