"""Put all techniques side by side.

Reads the evaluations, probes and training curves; writes `reports/leaderboard.json`, `reports/metrics.json` (the few
numbers that `dvc metrics show` and `dvc exp show` list), `reports/probe.csv` and the tables that `dvc plots show` draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.command import parser, run
from ballast.priors import correct
from stages.files import (
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

REFERENCE = "baseline"


def leaderboard(evaluations: dict[str, Any]) -> dict[str, Any]:
    """The pooled numbers of every technique."""
    first = next(iter(evaluations.values()))
    pooled = ("declared_prior", "fitted_prior", "raw", "corrected")
    techniques = {
        name: {
            "technique": each["technique"],
            "seeds": sorted(map(int, each["seeds"])),
            "parameters": each["parameters"],
            **{key: each["pooled"][key] for key in pooled},
        }
        for name, each in evaluations.items()
    }
    return {
        "labels": first["labels"],
        "reference": REFERENCE if REFERENCE in evaluations else next(iter(evaluations)),
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
    board = leaderboard(evaluations)
    write_json(LEADERBOARD, board)
    write_json(METRICS, short_metrics(board))
    tables = [probe_table(name, read_json(PROBES / f"{name}.json"), evaluations[name]) for name in names]
    write_table(pd.concat(tables), PROBE_TABLE)
    write_table(precision_recall(evaluations), PRECISION_RECALL)
    write_table(training_loss(names, params.train.seeds), TRAINING_LOSS)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
