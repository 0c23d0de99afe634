"""Eight classes of 41 to 2,840 messages through every technique that claims K classes, from the file to the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ballast.evaluation.claims import PRIOR, PROBE
from ballast.evaluation.metrics import metric_names
from ballast.techniques import technique_names
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import TINY_TRAINING, Project, corpus, workspace

COUNTS = dict(zip("abcdefgh", (2840, 1080, 640, 320, 180, 120, 75, 41), strict=True))
# What a technique needs when it has no default of its own.
PARAMETERS = {"class_weight": {"weights": "inverse"}}
FOR_TWO_CLASSES = {"one_class"}
EVERY = [technique for technique in technique_names() if technique not in FOR_TWO_CLASSES]


@pytest.fixture(scope="module")
def long_tailed(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Project:
    """A project after its ingest, with an entry for every technique."""
    project = workspace(tmp_path_factory.mktemp("long_tail"))
    project.write("messages.csv", corpus(COUNTS))
    project.edit(
        {
            "techniques": {technique: PARAMETERS.get(technique, {}) for technique in EVERY},
            "evaluate.resamples": 100,
            "probe.texts": ["bababa bebe", "doda"],
            "train.model": str(tiny_encoder),
            **{f"train.{key}": value for key, value in TINY_TRAINING.items()},
            "train.frozen_layers": 1,
        }
    )
    assert project.stage_here("ingest").code == 0
    return project


def test_a_technique_for_two_classes_says_so_before_anything_trains(long_tailed: Project) -> None:
    for technique in FOR_TWO_CLASSES:
        params = (long_tailed.folder / "params.yaml").read_bytes()
        long_tailed.edit({f"techniques.{technique}": {}})
        assert f"techniques.{technique}: {technique} is for two classes, not 8" in long_tailed.stage_here("techniques").error
        long_tailed.write("params.yaml", params)


@pytest.fixture(scope="module")
def cards(long_tailed: Project) -> Project:
    assert long_tailed.stage_here("techniques").code == 0
    return long_tailed


@pytest.mark.parametrize("technique", EVERY)
def test_it_goes_through_the_technique(cards: Project, technique: str) -> None:
    for stage, arguments in {"resample": {"seed": 0}, "train": {"seed": 0}, "evaluate": {}}.items():
        done = cards.stage_here(stage, name=technique, **arguments)
        assert done.code == 0, done.stderr
    assert (cards.folder / PROJECT.samples / technique / "0.parquet").is_file()
    with np.load(cards.folder / PROJECT.logits / technique / "0.npz") as saved:
        assert saved["test"].shape == (sum(read_json(cards.folder / PROJECT.ingest)["splits"]["test"].values()), 8)
    evaluation = read_json(cards.folder / PROJECT.evaluations / f"{technique}.json")
    pooled, fitted = evaluation["pooled"], evaluation["fitted"]["fitted_prior"]
    for family in ("raw", "corrected"):
        assert set(pooled[family]) == set(metric_names(list(COUNTS)))
        assert all(each["low"] <= each["value"] <= each["high"] for each in pooled[family].values())
    assert sum(each["value"] for each in fitted.values()) == pytest.approx(1)


def test_all_of_them_are_compared(cards: Project) -> None:
    for stage in ("probe", "compare"):
        done = cards.stage_here(stage)
        assert done.code == 0, done.stderr
    board = read_json(cards.folder / PROJECT.leaderboard)
    assert list(board["techniques"]) == sorted(EVERY) and board["labels"] == list(COUNTS)
    compared = board["techniques"]["tfidf"]["comparison"]["corrected"]["metrics"]
    assert {f"{label}.f1" for label in COUNTS} <= set(compared)
    assert board["techniques"]["tfidf"]["corrected"]["macro_f1"]["value"] > 0.5
    claims = json.loads((cards.folder / PROJECT.claims).read_bytes())
    named = {part["metric"] for claim in claims for part in claim["parts"] if "." in part["metric"]} - {PRIOR, PROBE}
    assert named and all(metric.startswith("h.") for metric in named)
    assert (cards.folder / PROJECT.probe_table).is_file()
