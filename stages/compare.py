"""Put all techniques side by side.

Reads the cards, evaluations and probes; writes `reports/leaderboard.json`, `reports/metrics.json` (the few numbers that
`dvc metrics show` and `dvc exp show` list) and `reports/probe.csv`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.command import parser, run
from ballast.priors import correct
from stages.files import EVALUATIONS, LEADERBOARD, METRICS, PROBE_TABLE, PROBES, read_json, replaced, write_json
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


def main() -> None:
    names = list(read_params().techniques)
    evaluations = {name: read_json(EVALUATIONS / f"{name}.json") for name in names}
    board = leaderboard(evaluations)
    write_json(LEADERBOARD, board)
    write_json(METRICS, short_metrics(board))
    tables = [probe_table(name, read_json(PROBES / f"{name}.json"), evaluations[name]) for name in names]
    with replaced(PROBE_TABLE) as temporary:
        pd.concat(tables).to_csv(temporary, index=False)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
