"""Write the report: `reports/index.html` and the two Evidently pages.

It reads the results of the earlier stages and the saved logits. It computes only the calibration curves of raw posteriors
and the test of the test set against the production prior.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.cli import parser
from ballast.data.expected_shares import count_bounds
from ballast.evaluation.curves import calibration_curve
from stages.pages.across.view import page as across_page
from stages.pages.evidently import drift_page, techniques_page, with_shares
from stages.pages.report.errors_view import rows_of
from stages.pages.report.results import Results
from stages.pages.report.view import page
from stages.store.across_data_sets import read_across, read_seconds
from stages.store.checked import read_pinned
from stages.store.encoder_settings import choice_in_words
from stages.store.files import read_json, replaced
from stages.store.leaderboard import read_leaderboard
from stages.store.logits import Corrected, read_training
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.running import run
from stages.store.studies import study_results


def raw_calibration(logits: np.ndarray, classes: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Calibration curve of each label from raw logits (n, K) and classes (n,)."""
    posterior = softmax(logits.astype(np.float64), axis=1)
    return {label: calibration_curve(posterior[:, at], classes == at) for at, label in enumerate(labels)}


def prediction_columns(logits: np.ndarray, classes: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Classes, predicted classes and probabilities of some rows of corrected logits (n, K)."""
    chosen = logits[rows]
    return {"classes": classes[rows], "predicted": chosen.argmax(axis=1), "probability": softmax(chosen, axis=1)}


def deployed_logits(corrected: Corrected, selected: Mapping[str, Any]) -> np.ndarray:
    """Corrected logits (m, K) of the test messages by the selected training, or their mean over the members of an ensemble."""
    seeds = selected["seeds"] if selected["deploy"] == "ensemble" else [selected["seed"]]
    mean: np.ndarray = np.mean([corrected.test(selected["technique"], seed) for seed in seeds], axis=0)
    return mean


def evidently_pages(results: Results, corrected: Corrected, messages: Messages) -> dict[str, str]:
    """The Evidently pages by file name. A large test set is sampled."""
    labels, seeds = results.labels, results.params.train.seeds
    rng = np.random.default_rng(0)
    classes = messages.test()["class"].to_numpy()
    held_out = np.concatenate([messages.validation(seed)["class"].to_numpy() for seed in seeds])
    most = results.params.report.sample
    count = len(classes)
    rows = np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
    predicted = {name: corrected.test(name, seeds[0])[rows].argmax(axis=1) for name in results.names}
    chosen = results.selected["technique"]
    drawn = with_shares(held_out, corrected.production, most, rng)
    return {
        "evidently_techniques.html": techniques_page(labels, classes[rows], predicted, labels.index(results.rarest)),
        "evidently_drift.html": drift_page(
            labels,
            current=prediction_columns(deployed_logits(corrected, results.selected), classes, rows),
            reference=prediction_columns(corrected.out_of_fold(chosen, seeds), held_out, drawn),
            technique=chosen,
            threshold=results.params.validate_.false_alarm,
        ),
    }


def read_probe(content: bytes) -> pd.DataFrame:
    """A table of probabilities of probe texts. A text such as "NA" is not a missing value."""
    names = dict.fromkeys(("technique", "perturbation", "text", "label", "skipped"), str)
    missing = {"raw": [""], "corrected": [""]}
    return pd.read_csv(BytesIO(content), dtype=names, keep_default_na=False, na_values=missing)


def read_levers() -> list[dict[str, Any]] | None:
    """What would help, or None if it is not measured."""
    path = PROJECT.levers
    levers: list[dict[str, Any]] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return levers


def read_results(messages: Messages) -> tuple[Results, Corrected]:
    """All results of the earlier stages, and the corrected logits."""
    params = read_params()
    board = read_leaderboard()
    labels, names = board["labels"], list(params.techniques)
    evaluations = {name: read_json(PROJECT.evaluations / f"{name}.json") for name in names}
    production = np.array([board["production_prior"][label] for label in labels])
    corrected = Corrected(evaluations, labels, production)
    selected = read_json(PROJECT.selected / "model.json")
    pinned = board.pop("files") | selected["files"]
    test = messages.test()
    classes = test["class"].to_numpy()
    posterior = softmax(deployed_logits(corrected, selected), axis=1)
    n_predicted = np.bincount(posterior.argmax(axis=1), minlength=len(labels))
    bounds = zip(*count_bounds(production, len(test), params.validate_.false_alarm), strict=True)
    first = params.train.seeds[0]
    errors = read_json(PROJECT.errors)
    shown = rows_of(errors) if params.report.show_texts else []
    results = Results(
        params=params,
        ingest=read_json(PROJECT.ingest),
        validation=read_json(PROJECT.validation),
        board=board,
        evaluations=evaluations,
        claims=json.loads(read_pinned(PROJECT.claims, pinned[PROJECT.claims.as_posix()])),
        search=read_json(PROJECT.search) if params.search.trials else {},
        encoder=choice_in_words(),
        studies=study_results(),
        across=read_across(),
        calibration={name: raw_calibration(read_training(name, first).scores.test, classes, labels) for name in names},
        losses=pd.read_csv(BytesIO(read_pinned(PROJECT.training_loss, pinned[PROJECT.training_loss.as_posix()]))),
        probe=read_probe(read_pinned(PROJECT.probe_table, pinned[PROJECT.probe_table.as_posix()])),
        perturbations=read_probe(read_pinned(PROJECT.perturbation_table, pinned[PROJECT.perturbation_table.as_posix()])),
        selected=selected,
        selection=board["selection"],
        point=read_json(PROJECT.selected / "operating_point.json"),
        levers=read_levers(),
        errors=errors,
        texts=dict(zip(shown, messages.table.loc[shown, "text"], strict=True)),
        model_card=read_pinned(PROJECT.model_card, pinned[PROJECT.model_card.as_posix()]).decode(),
        n_predicted=dict(zip(labels, n_predicted.tolist(), strict=True)),
        bounds={label: (int(low), int(high)) for label, (low, high) in zip(labels, bounds, strict=True)},
    )
    return results, corrected


def main() -> None:
    messages = read_messages(["text"])
    results, corrected = read_results(messages)
    pages = {"index.html": page(results), "datasets.html": across_page(results.across, read_seconds())}
    for name, content in {**pages, **evidently_pages(results, corrected, messages)}.items():
        with replaced(PROJECT.reports / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(f"report: {PROJECT.reports / 'index.html'}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
