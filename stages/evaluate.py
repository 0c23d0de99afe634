"""Evaluate one technique from its saved logits.

Reads `logits/<name>/`, the labels and groups of validation and test, the production prior and the rule of the operating
point; writes `evaluations/<name>.json` (per seed and pooled) and `evaluations/<name>.npz` (bootstrap draws of the
metrics, and which messages each seed classified correctly), which the comparison of techniques reads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ballast.cli import parser
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.evaluate import evaluate
from ballast.evaluation.protocol import Protocol
from stages.store.checked import write_arrays
from stages.store.files import read_json, replaced, write_json
from stages.store.logits import labelled, seed_scores
from stages.store.messages import read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.protocol import operating_rule, production_prior
from stages.store.running import run
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
    with replaced(path) as temporary:
        write_arrays(temporary, arrays)


def main(name: str) -> None:
    params = read_params()
    technique = read_json(PROJECT.cards / f"{entry_name(name)}.json")["technique"]
    messages = read_messages(["group"])
    scores = {seed: seed_scores(name, seed) for seed in params.train.seeds}
    production = production_prior(params.production.prior, read_json(PROJECT.ingest)["labels"])
    protocol = Protocol(
        names=messages.names,
        validation=labelled(messages, "validation"),
        test=labelled(messages, "test"),
        production_prior=production,
        rule=operating_rule(params.operating_point, messages.names, production),
        resamples=params.evaluate.resamples,
        confidence=params.evaluate.confidence,
        seed=params.evaluate.seed,
        safe_odds_ratio=params.evaluate.safe_odds_ratio,
    )
    evaluated = evaluate({seed: of_seed for seed, (of_seed, _) in scores.items()}, protocol)
    parameters = max(parameters for _, parameters in scores.values())
    missed = [seed for seed, result in evaluated.summary["seeds"].items() if not result["operating_point"]["met"]]
    if missed:
        where = "" if len(missed) == len(scores) else f" for seed {', '.join(missed)}"
        limit = f"{params.operating_point.rule} {protocol.rule.limit:g} of {messages.names[protocol.rule.label]}"
        print(
            f"evaluate: {name}: no threshold satisfies {limit} on validation{where}; the point of highest precision is used",
            file=sys.stderr,
        )
    families = {"raw": evaluated.raw, "corrected": evaluated.corrected, "operating_point": evaluated.operating_point}
    write_draws(families, PROJECT.evaluations / f"{name}.npz")
    write_json(PROJECT.evaluations / f"{name}.json", {**evaluated.summary, "technique": technique, "parameters": parameters})


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    run(main, arguments.parse_args())
