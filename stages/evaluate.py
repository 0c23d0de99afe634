"""Evaluate one technique from its saved logits.

Reads `logits/<name>/`, the labels and units of the messages, the production prior and the rule of the operating point; writes
`evaluations/<name>.json` (fitted, out of fold, per seed and pooled) and `evaluations/<name>.npz` (bootstrap draws of the
metrics, and which messages each seed classified correctly), which the comparison and the selection of techniques read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ballast.cli import parser
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.evaluate import evaluate
from stages.store.checked import write_arrays
from stages.store.files import read_json, replaced, write_json, write_plain_json
from stages.store.ingested import prior_counts
from stages.store.logits import protocol_of, read_trainings
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.protocol import missed_limit
from stages.store.running import run
from stages.store.short_metrics import technique_metrics
from stages.store.units import read_with_units
from stages.store.values import entry_name


def write_draws(families: Mapping[str, Draws], path: Path) -> None:
    """Write the draws that a comparison needs as arrays, `<family>.<name>`."""
    arrays: dict[str, np.ndarray] = {}
    for family, draws in families.items():
        metrics = sorted(draws.values)
        arrays |= {
            f"{family}.metrics": np.array(metrics),
            f"{family}.draws": np.stack([draws.values[metric] for metric in metrics]).astype(np.float32),
            f"{family}.seeds": np.stack([draws.seeds[metric] for metric in metrics]),
            f"{family}.correct": draws.correct,
        }
        if draws.chance:
            arrays[f"{family}.chance"] = np.array([draws.chance.get(metric, 0.0) for metric in metrics])
        if draws.pooled is not None:
            arrays[f"{family}.pooled"] = np.array([draws.pooled[metric] for metric in metrics])
    with replaced(path) as temporary:
        write_arrays(temporary, arrays)


def main(name: str, project: Project = PROJECT) -> None:
    params = read_params(project.params)
    technique = read_json(project.cards / f"{entry_name(name)}.json")["technique"]
    messages = read_with_units([], project)
    trainings = read_trainings(name, params.train.seeds, messages, project)
    protocol = protocol_of(params, messages, prior_counts(read_json(project.ingest)), trainings)
    evaluated = evaluate({seed: training.scores for seed, training in trainings.items()}, protocol)
    fitted = evaluated.summary["fitted"]["operating_point"]
    if not fitted["met"]:
        print(f"evaluate: {name}: {missed_limit(fitted)}", file=sys.stderr)
    for seed, of_seed in evaluated.summary["seeds"].items():
        of_seed["fold"] = int(seed) % messages.n_folds if messages.n_folds else None
    families = {
        "raw": evaluated.raw,
        "corrected": evaluated.corrected,
        "operating_point": evaluated.operating_point,
        "out_of_fold": evaluated.out_of_fold,
    }
    write_draws(families, project.evaluations / f"{name}.npz")
    sizes = {
        "parameters": max(training.parameters for training in trainings.values()),
        "multiply_adds": max(training.multiply_adds for training in trainings.values()),
    }
    write_json(project.evaluations / f"{name}.json", {**evaluated.summary, "technique": technique, **sizes})
    write_plain_json(project.technique_metrics / f"{name}.json", technique_metrics(evaluated.summary))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    run(main, arguments.parse_args())
