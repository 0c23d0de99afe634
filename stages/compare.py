"""Put all techniques side by side.

Reads the evaluations, probes and training curves; writes `reports/leaderboard.json`, `reports/metrics.json` (the few
numbers that `dvc metrics show` and `dvc exp show` list), `reports/probe.csv` and the tables that `dvc plots show` draws.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.claims import PROBE, claims, judge, nothing_helps
from ballast.command import parser, run
from ballast.comparison import Draws, compare, seed_draws
from ballast.errors import UserError
from ballast.metrics import LOSSES
from ballast.priors import correct
from stages.files import (
    CLAIMS,
    CURVES,
    EVALUATIONS,
    LEADERBOARD,
    METRICS,
    PRECISION_RECALL,
    PROBE_TABLE,
    PROBES,
    TRAINING_LOSS,
    read_json,
    replaced,
    write_json,
)
from stages.params import read_params
from stages.studies import study_results

REFERENCE = "baseline"


def read_draws(name: str) -> Draws:
    """What `evaluate` saved of a technique for its comparison with others."""
    path = EVALUATIONS / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            metrics = saved["metrics"].tolist()
            return Draws(
                values=dict(zip(metrics, saved["draws"], strict=True)),
                point=dict(zip(metrics, saved["point"].tolist(), strict=True)),
                correct=saved["correct"],
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as saved draws ({error}); run `dvc repro`") from error


def with_probe(draws: Draws, name: str, probe: dict[str, Any], label: int) -> Draws:
    """The draws with the raw probability of a label for the first probe text."""
    values = np.array([softmax(logits[0])[label] for logits in probe["logits"].values()])
    resamples = len(next(iter(draws.values.values())))
    drawn = seed_draws(values, resamples, np.random.default_rng(zlib.crc32(name.encode())))
    return replace(draws, values={**draws.values, PROBE: drawn}, point={**draws.point, PROBE: float(values.mean())})


def reference_of(names: list[str]) -> str:
    """The technique that all others are compared with."""
    return REFERENCE if REFERENCE in names else names[0]


def compared_metrics(labels: list[str]) -> list[str]:
    """The metrics that techniques are compared by: overall, and of each class."""
    overall = ["macro_f1", "balanced_accuracy", "accuracy", "mcc", "log_loss", "brier"]
    return overall + [f"{label}.{metric}" for label in labels for metric in ("precision", "recall", "f1", "pr_auc")]


def leaderboard(evaluations: dict[str, Any], comparisons: dict[str, Any]) -> dict[str, Any]:
    """The pooled numbers of every technique, and how it compares with the reference."""
    first = next(iter(evaluations.values()))
    pooled = ("declared_prior", "fitted_prior", "raw", "corrected")
    techniques = {
        name: {
            "technique": each["technique"],
            "seeds": sorted(map(int, each["seeds"])),
            "parameters": each["parameters"],
            **{key: each["pooled"][key] for key in pooled},
            "post_hoc": each["post_hoc"],
            "comparison": comparisons.get(name),
        }
        for name, each in evaluations.items()
    }
    return {
        "labels": first["labels"],
        "reference": reference_of(list(evaluations)),
        "production_prior": first["production_prior"],
        "techniques": techniques,
    }


def short_metrics(board: dict[str, Any]) -> dict[str, Any]:
    """The few corrected numbers to list in a terminal; the class is the rarest."""
    rarest = min(board["production_prior"], key=board["production_prior"].get)
    names = ["macro_f1", f"{rarest}.f1", f"{rarest}.pr_auc", "log_loss"]
    return {
        name: {metric: round(each["corrected"][metric]["value"], 4) for metric in names}
        for name, each in board["techniques"].items()
    }


def probe_table(name: str, probe: dict[str, Any], evaluation: dict[str, Any]) -> pd.DataFrame:
    """Probabilities of each probe text and label, raw and corrected to the production prior, by seed."""
    labels = probe["labels"]
    target = np.array([evaluation["production_prior"][label] for label in labels])
    parts = []
    for seed, logits in probe["logits"].items():
        effective = np.array([evaluation["seeds"][seed]["effective_prior"][label] for label in labels])
        scores = np.array(logits)
        columns = {
            "technique": name,
            "seed": int(seed),
            "text": np.repeat(probe["texts"], len(labels)),
            "label": np.tile(labels, len(probe["texts"])),
            "raw": softmax(scores, axis=1).ravel().round(6),
            "corrected": softmax(correct(scores, effective, target), axis=1).ravel().round(6),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def precision_recall(evaluations: dict[str, Any]) -> pd.DataFrame:
    """Precision and recall of every technique and label, in the order of falling thresholds."""
    parts = [
        pd.DataFrame({"technique": name, "label": label, **curve}).rename_axis("order").reset_index()
        for name, each in evaluations.items()
        for label, curve in each["curves"]["precision_recall"].items()
    ]
    return pd.concat(parts)


def training_loss(names: list[str], seeds: list[int]) -> pd.DataFrame:
    """Loss by step of every training that takes steps."""
    parts = [pd.DataFrame({"technique": [], "seed": [], "step": [], "loss": []})]
    for name in names:
        for seed in seeds:
            path = CURVES / name / str(seed) / "plots" / "metrics" / "loss.tsv"
            if path.is_file():
                parts.append(pd.read_csv(path, sep="\t").assign(technique=name, seed=seed))
    return pd.concat(parts)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv."""
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False)


def main() -> None:
    params = read_params()
    names = list(params.techniques)
    evaluations = {name: read_json(EVALUATIONS / f"{name}.json") for name in names}
    labels = next(iter(evaluations.values()))["labels"]
    draws = {name: read_draws(name) for name in names}
    rarest = min(labels, key=lambda label: evaluations[names[0]]["production_prior"][label])
    probed = {name: with_probe(draws[name], name, read_json(PROBES / f"{name}.json"), labels.index(rarest)) for name in names}
    comparisons = compare(draws, reference_of(names), compared_metrics(labels), params.evaluate.confidence, LOSSES)
    board = leaderboard(evaluations, comparisons)
    write_json(LEADERBOARD, board)
    write_json(METRICS, short_metrics(board))
    stated = [*claims(rarest), nothing_helps(names, board["reference"])]
    judged = judge(stated, probed, params.evaluate.confidence)
    # What no entry of the main pipeline can show, a study may have shown.
    shown = {claim["claim"]: claim for study in study_results().values() if study is not None for claim in study.claims}
    write_json(CLAIMS, [claim if claim["parts"] else shown.get(claim["claim"], claim) for claim in judged])
    tables = [probe_table(name, read_json(PROBES / f"{name}.json"), evaluations[name]) for name in names]
    write_table(pd.concat(tables), PROBE_TABLE)
    write_table(precision_recall(evaluations), PRECISION_RECALL)
    write_table(training_loss(names, params.train.seeds), TRAINING_LOSS)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
