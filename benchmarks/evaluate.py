"""Time `evaluate` and `compare` on simulated logits of many techniques, seeds and messages; writes benchmarks/evaluate.json.

It also measures the difference between our ranking metrics, computed from score bins, and scikit-learn's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

from benchmarks.measuring import ROOT, measured, surroundings, write_result
from stages.store.checked import write_arrays, write_table
from stages.store.files import write_json

LABELS, SHARES = ["ham", "spam"], np.array([0.87, 0.13])
# With this factor 98% of the groups hold one message, as in the SMS data.
MORE_GROUPS = 25
FOLDS = 8


def write_messages(folder: Path, rest: int, test: int, rng: np.random.Generator) -> pd.DataFrame:
    """Write and return a table of messages, `test` in the test split and `rest` in the folds of validation."""
    total = rest + test
    table = pd.DataFrame(
        {
            "id": np.arange(total).astype(str),
            "text": "made up",
            "label": np.array(LABELS)[rng.choice(2, total, p=SHARES)],
            "group": np.sort(rng.integers(0, MORE_GROUPS * total, total)),
            "split": np.repeat(["train", "test"], [rest, test]),
            "fold": np.append(np.arange(rest) * FOLDS // rest, np.full(test, -1)).astype(np.int16),
            "source": "made up",
        }
    )
    (folder / "data/techniques").mkdir(parents=True)
    write_table(folder / "data/messages.parquet", table)
    counts = {label: int((table["label"] == label).sum()) for label in LABELS}
    write_json(folder / "data/ingest.json", {"labels": counts, "sha256": "made up"})
    return table


def made_up_logits(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulated logits (n, 2) that separate the classes with few errors."""
    return (2.5 * np.eye(2)[classes] + rng.normal(size=(len(classes), 2)) + np.log(SHARES)).astype(np.float32)


def write_technique(folder: Path, name: str, seeds: int, table: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write the card, logits and probe of a technique."""
    card = {"name": name, "technique": "baseline", "parameters": {}, "sources": {}}
    write_json(folder / f"data/techniques/{name}.json", card)
    (folder / "logits" / name).mkdir(parents=True)
    classes = (table["label"] == LABELS[1]).to_numpy().astype(int)
    for seed in range(seeds):
        validation = np.flatnonzero(table["fold"] == seed % FOLDS)
        # As many training messages as validation has.
        train = np.flatnonzero((table["split"] == "train") & (table["fold"] != seed % FOLDS))[: len(validation)]
        rows = {"validation": validation, "test": np.flatnonzero(table["split"] == "test"), "train": train}
        logits = {part: made_up_logits(classes[of_part], rng) for part, of_part in rows.items()}
        numbers = {f"{part}_rows": of_part for part, of_part in rows.items()}
        others = {"train_classes": classes[train], "declared_prior": SHARES, "parameters": np.array(1)}
        head = {"head_norms": np.ones(2), "head_bias": np.zeros(2), "multiply_adds": np.array(1)}
        write_arrays(folder / "logits" / name / f"{seed}.npz", logits | numbers | others | head)
    probe = {
        "texts": ["made up"],
        "labels": LABELS,
        "perturbed": {},
        "max_length": 128,
        "logits": {str(seed): [[0.0, 1.0]] for seed in range(seeds)},
    }
    write_json(folder / f"probes/{name}.json", probe)


def ranking_error(folder: Path, name: str, classes: np.ndarray) -> float:
    """The largest difference between the first seed's ranking metrics and scikit-learn's."""
    measured = json.loads((folder / f"evaluations/{name}.json").read_text())["seeds"]["0"]["raw"]
    with np.load(folder / f"logits/{name}/0.npz") as saved:
        scores = log_softmax(saved["test"].astype(float), axis=1)
    odds = scores[:, 1] - scores[:, 0]
    exact = {"pr_auc": average_precision_score, "roc_auc": roc_auc_score}
    return max(
        abs(measured[f"{label}.{metric}"] - function(classes == at, odds if at else -odds))
        for at, label in enumerate(LABELS)
        for metric, function in exact.items()
    )


def main(techniques: int, seeds: int, test: int) -> None:
    """Write a simulated project, run the stages and write the measurements."""
    rng = np.random.default_rng(0)
    names = ["baseline", *(f"technique_{at}" for at in range(1, techniques))]
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["techniques"] = {name: {"technique": "baseline"} for name in names} | {"baseline": {}}
    params["train"]["seeds"] = list(range(seeds))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yaml.dump(params, folder / "params.yaml")
        table = write_messages(folder, 2 * test, test, rng)
        for name in tqdm(names, desc="simulated logits"):
            write_technique(folder, name, seeds, table, rng)
        evaluated = [measured("-m", "stages.evaluate", name, folder=folder)["seconds"] for name in tqdm(names, desc="evaluate")]
        compared = measured("-m", "stages.compare", folder=folder)["seconds"]
        error = ranking_error(
            folder, "baseline", (table["label"] == LABELS[1])[table["split"] == "test"].to_numpy().astype(int)
        )
    result = {
        "techniques": techniques,
        "seeds": seeds,
        "test_messages": test,
        "resamples": params["evaluate"]["resamples"],
        "evaluate_seconds": round(sum(evaluated), 1),
        "compare_seconds": round(compared, 1),
        "ranking_error": float(f"{error:.1e}"),
        **surroundings(),
    }
    write_result("evaluate", result)
    print(json.dumps(result, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--techniques", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=int, default=100_000, help="test messages")
    main(**vars(parser.parse_args()))
