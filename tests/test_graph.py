"""The graph under DVC: what runs after which edit, and that a failure loses nothing."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ballast
from ballast.models import read_manifest
from stages.files import CARDS, EVALUATIONS, INGEST, LOGITS, MESSAGES, MODELS, PROBES, SAMPLES, read_json
from tests.project import ROOT, TINY_TRAINING, Project, corpus, project_copy, ran, yaml

COUNTS = dict(zip("abcdefgh", (2840, 1080, 640, 320, 180, 120, 75, 41), strict=True))
WEIGHTS = {label: round(1 / count**0.5, 3) for label, count in COUNTS.items()}
TECHNIQUES = {
    "baseline": {},
    "class_weight": {"weights": "inverse"},
    "class_weight_given": {"technique": "class_weight", "weights": WEIGHTS},
    "tfidf": {},
}
STAGES = yaml.load(ROOT / "dvc.yaml")["stages"]
# What follows the comparison: it runs when the leaderboard has changed.
DOWNSTREAM = {name for name in ("select", "report") if name in STAGES}
MINE = b'''"""Give every message the shares of the training split."""

from collections.abc import Sequence

import numpy as np

from ballast.models import PriorModel
from ballast.technique import Technique, TrainingData, TrainingSettings


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    def fit(technique: Technique, data: TrainingData, settings: TrainingSettings) -> PriorModel:
        return PriorModel(labels=data.label_names, log_prior=np.log(counts / counts.sum()))

    return Technique(fit=fit)
'''


def settings(encoder: Path) -> dict[str, object]:
    """Edits of params.yaml: the corpus, the tiny encoder, few techniques, few resamples."""
    return {
        "ingest.source": "csv",
        "ingest.path": "messages.csv",
        "techniques": TECHNIQUES,
        "evaluate.resamples": 100,
        "train.model": str(encoder),
        **{f"train.{key}": value for key, value in TINY_TRAINING.items()},
    }


def of_entry(name: str, seeds: tuple[int, ...] = (0,)) -> set[str]:
    """The stages of one entry of techniques."""
    by_seed = {f"{stage}@{name}-{seed}" for stage in ("resample", "train") for seed in seeds}
    return by_seed | {f"{stage}@{name}" for stage in ("evaluate", "probe")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Project:
    """A project after its first `dvc repro`, which ran every stage."""
    project = project_copy(tmp_path_factory.mktemp("graph"))
    project.write("messages.csv", corpus(COUNTS))
    project.edit(settings(tiny_encoder))
    entries = set[str]().union(*map(of_entry, TECHNIQUES))
    assert project.repro() == entries | {name for name, stage in STAGES.items() if "matrix" not in stage}
    return project


# The tests below edit the same project one after the other, in this order.


def test_every_class_is_in_every_split_and_every_result_is_there(built: Project) -> None:
    ingested = read_json(built.folder / INGEST)
    assert ingested["labels"] == COUNTS
    assert all(count >= 4 for counts in ingested["splits"].values() for count in counts.values())
    board = read_json(built.folder / "reports/leaderboard.json")
    assert set(board["techniques"]) == set(TECHNIQUES) and board["labels"] == list(COUNTS)
    assert set(board["techniques"]["tfidf"]["corrected"]) >= {"macro_f1", "h.f1", "h.pr_auc", "log_loss"}
    assert board["techniques"]["tfidf"]["corrected"]["macro_f1"]["value"] > 0.5
    assert read_json(built.folder / "selected/model.json")["technique"] in TECHNIQUES


def test_nothing_edited_nothing_runs(built: Project) -> None:
    assert built.repro() == set()


def test_one_parameter_of_one_entry(built: Project) -> None:
    built.edit({"techniques.class_weight_given.weights": {**WEIGHTS, "h": 0.3}})
    assert built.repro() == {"techniques", *of_entry("class_weight_given"), "compare", *DOWNSTREAM}


def test_the_file_of_a_technique_reruns_its_entries_and_equal_results_end_it_there(built: Project) -> None:
    before = {path: path.read_bytes() for name in ("logits", "models", "evaluations") for path in files(built, name)}
    with (built.folder / "ballast/techniques/class_weight.py").open("a") as file:
        file.write("# A comment.\n")
    expected = {"techniques", *of_entry("class_weight"), *of_entry("class_weight_given"), "compare"}
    assert built.repro() - {"report"} == expected
    # Training is deterministic: the same bytes again.
    assert {path: path.read_bytes() for path in before} == before


def files(project: Project, name: str) -> list[Path]:
    return [path for path in (project.folder / name).rglob("*") if path.is_file()]


def test_another_technique_is_one_file_and_one_line(built: Project) -> None:
    built.write("ballast/techniques/mine.py", MINE)
    built.edit({"techniques.mine": {}})
    assert built.repro() == {"techniques", *of_entry("mine"), "compare", *DOWNSTREAM}
    assert "mine" in read_json(built.folder / "reports/leaderboard.json")["techniques"]
    assert set(on_disk(built, "mine")) == {SAMPLES, MODELS, LOGITS, EVALUATIONS, PROBES, CARDS, Path("curves")}


def on_disk(project: Project, name: str) -> list[Path]:
    """The folders that hold something of an entry."""
    folders = (SAMPLES, MODELS, LOGITS, EVALUATIONS, PROBES, CARDS, Path("curves"))
    return [folder for folder in folders for path in (project.folder / folder).iterdir() if path.name.split(".")[0] == name]


def test_a_technique_removed_leaves_nothing_and_reruns_the_comparison_only(built: Project) -> None:
    built.edit({"techniques": {**TECHNIQUES, "class_weight_given": {"technique": "class_weight", "weights": {**WEIGHTS, "h": 0.3}}}})
    assert built.repro() == {"techniques", "compare", *DOWNSTREAM}
    assert "mine" not in read_json(built.folder / "reports/leaderboard.json")["techniques"]
    assert on_disk(built, "mine") == []


def test_another_prior_in_production_trains_nothing(built: Project) -> None:
    prior = {label: 0.125 for label in COUNTS}
    built.edit({"production.prior": prior})
    assert built.repro() == {"techniques", *(f"evaluate@{name}" for name in TECHNIQUES), "compare", *DOWNSTREAM}
    assert read_json(built.folder / "reports/leaderboard.json")["production_prior"] == prior


def test_another_seed_trains_that_seed_only(built: Project) -> None:
    built.edit({"train.seeds": [0, 1]})
    seed = {f"{stage}@{name}-1" for stage in ("resample", "train") for name in TECHNIQUES}
    assert built.repro() == {"techniques", *seed, *(f"{stage}@{name}" for stage in ("evaluate", "probe") for name in TECHNIQUES), "compare", *DOWNSTREAM}
    assert {path.name for path in (built.folder / MODELS / "tfidf").iterdir()} == {"0", "1"}


def test_a_failed_stage_loses_nothing(built: Project) -> None:
    outputs = [MESSAGES, INGEST, MODELS / "baseline/0/model.safetensors", LOGITS / "tfidf/0.npz", Path("reports/leaderboard.json")]
    before = [(built.folder / path).read_bytes() for path in outputs]
    built.write("other.csv", corpus(COUNTS).rename(columns={"label": "class"}))
    built.edit({"ingest.path": "other.csv"})
    failed = built.run("dvc", "repro")
    assert failed.code != 0 and ran(failed.stdout) == {"ingest"}
    assert "error: other.csv: no column 'label' (ingest.label_column)" in failed.stderr
    assert [(built.folder / path).read_bytes() for path in outputs] == before
    built.edit({"ingest.path": "messages.csv"})
    assert built.repro() <= {"ingest", "techniques"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file system of a given size, mounted over the project's models."""
