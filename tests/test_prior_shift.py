"""A test split with other class shares than training: the metrics of `evaluate` against those of a known model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from stages.store.checked import write_arrays
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.project import Project

# The scores of the classes are normal with variance 1, this far apart.
DISTANCE = 3.5
TRAIN, TEST = 0.0094, 0.18
NAMES = ("in scope", "out of scope")
SIZES = {"train": 5000, "validation": 30_000, "test": 30_000}
SHARES = {"train": TRAIN, "validation": TRAIN, "test": TEST}


def truths(prior: float) -> dict[str, float]:
    """The metrics of exact posteriors in a population with a share `prior` of the rare class."""
    cut = -logit(prior) / DISTANCE
    recall, false_positives = norm.sf(cut - DISTANCE / 2), norm.sf(cut + DISTANCE / 2)
    precision = prior * recall / (prior * recall + (1 - prior) * false_positives)

    def loss(label: int) -> float:
        sign, centre = (1, DISTANCE / 2) if label else (-1, -DISTANCE / 2)
        value: float = quad(
            lambda score: -np.log(expit(sign * (DISTANCE * score + logit(prior)))) * norm.pdf(score - centre), -9, 9
        )[0]
        return value

    rare = NAMES[1]
    return {
        f"{rare}.recall": recall,
        f"{rare}.precision": precision,
        f"{rare}.f1": 2 * precision * recall / (precision + recall),
        f"{rare}.mean_probability": prior,
        "log_loss": prior * loss(1) + (1 - prior) * loss(0),
    }


def write_project(workspace: Project, model_prior: float, declared: float | None) -> None:
    """Messages of an official split, and logits that are exact posteriors under `model_prior`."""
    rng = np.random.default_rng(0)
    classes = {split: (np.arange(size) < round(SHARES[split] * size)).astype(int) for split, size in SIZES.items()}
    logits = {}
    for split, of_split in classes.items():
        scores = rng.normal(size=len(of_split)) + DISTANCE * (of_split - 0.5)
        logits[split] = np.column_stack([np.zeros(len(of_split)), DISTANCE * scores + logit(model_prior)])
    joined = np.concatenate(list(classes.values()))
    rows = pd.DataFrame({"label": np.array(NAMES)[joined], "split": np.repeat(list(SIZES), list(SIZES.values()))})
    rows = rows.assign(id=rows.index.astype(str), text="a message", group=rows.index, fold=np.int16(-1), source="made up")
    workspace.write(str(PROJECT.messages), rows)
    counts = {split: dict(zip(NAMES, np.bincount(of_split).tolist(), strict=True)) for split, of_split in classes.items()}
    labels = {name: sum(of_split[name] for of_split in counts.values()) for name in NAMES}
    ingested = {"labels": labels, "splits": counts, "folds": [], "split": {"rule": "column"}}
    write_json(workspace.folder / PROJECT.ingest, ingested)
    card = {"name": "tfidf", "technique": "tfidf", "parameters": {}, "sources": {}}
    write_json(workspace.folder / PROJECT.cards / "tfidf.json", card)
    path = workspace.folder / PROJECT.logits / "tfidf" / "0.npz"
    path.parent.mkdir(parents=True)
    numbers = {f"{split}_rows": np.flatnonzero(rows["split"] == split) for split in SIZES}
    prior = np.full(2, np.nan) if declared is None else np.array([1 - declared, declared])
    sizes = {"declared_prior": prior, "parameters": 1, "multiply_adds": 1, "train_classes": classes["train"]}
    write_arrays(path, {**logits, **numbers, **sizes})


def evaluated(workspace: Project, prior: str | Mapping[str, float]) -> dict[str, Any]:
    """The summary of `evaluate` on a production prior."""
    workspace.edit({"production.prior": prior, "evaluate.resamples": 200})
    done = workspace.stage_here("evaluate", name="tfidf")
    assert done.code == 0, done.stderr
    summary: dict[str, Any] = read_json(workspace.folder / PROJECT.evaluations / "tfidf.json")
    return summary


@pytest.mark.parametrize(("model_prior", "declared"), [(TRAIN, TRAIN), (0.5, None), (0.5, TRAIN)])
def test_metrics_on_the_production_prior_are_those_of_a_sample_from_it(
    workspace: Project, model_prior: float, declared: float | None
) -> None:
    """Also for posteriors of a balanced sample, and where the declared prior is wrong."""
    write_project(workspace, model_prior, declared)
    of_test = dict(zip(NAMES, (1 - TEST, TEST), strict=True))
    for setting, production in (("data", TRAIN), (of_test, TEST)):
        summary = evaluated(workspace, setting)
        assert summary["production_prior"][NAMES[1]] == pytest.approx(production, rel=0.01)
        expected = truths(production)
        for kind in ("pooled", "out_of_fold"):
            corrected = summary[kind]["corrected"]
            for metric, truth in expected.items():
                assert corrected[metric]["value"] == pytest.approx(truth, rel=0.15), (kind, metric, production)
        # Without weights, the test split would show another precision than production has at the prior of training.
        raw = summary["pooled"]["raw"][f"{NAMES[1]}.precision"]["value"]
        if production == TRAIN == model_prior:
            assert raw > 1.1 * expected[f"{NAMES[1]}.precision"]
