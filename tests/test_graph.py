"""The graph under DVC: what runs after which edit, and how a failed stage gets its outputs back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ballast
from ballast.models.folder import read_manifest
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import ROOT, TINY_TRAINING, Outcome, Project, corpus, project_copy, ran, yaml

COUNTS = dict(zip("abcdefgh", (2840, 1080, 640, 320, 180, 120, 75, 41), strict=True))
WEIGHTS = {label: round(1 / count**0.5, 3) for label, count in COUNTS.items()}
# One trains the encoder; the others come without torch, which saves most of the time of a stage.
TECHNIQUES = {
    "class_weight": {"weights": WEIGHTS},
    "tfidf": {},
    "tfidf_weak": {"technique": "tfidf", "C": 0.5},
}
STAGES = yaml.load(ROOT / "dvc.yaml")["stages"]
# Where an entry's files are.
FOLDERS = (PROJECT.cards, PROJECT.samples, PROJECT.models, PROJECT.logits, PROJECT.curves, PROJECT.evaluations, PROJECT.probes)
# What follows the comparison: it runs when the leaderboard has changed.
DOWNSTREAM = {name for name in ("errors", "levers", "select", "report") if name in STAGES}
MINE = b'''"""Give every message the shares of the training split."""

from collections.abc import Sequence

import numpy as np

from ballast.models.prior import PriorModel
from ballast.technique import Technique, TrainingData, TrainingSettings


def build(counts: np.ndarray, labels: Sequence[str]) -> Technique:
    def fit(data: TrainingData, settings: TrainingSettings) -> PriorModel:
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
    return {*(f"train@{name}-{seed}" for seed in seeds), f"evaluate@{name}"}


def files(project: Project, name: str) -> list[Path]:
    return [path for path in (project.folder / name).rglob("*") if path.is_file()]


def on_disk(project: Project, name: str) -> list[Path]:
    """The folders that hold something of an entry."""
    return [folder for folder in FOLDERS for path in (project.folder / folder).iterdir() if path.name.split(".")[0] == name]


def until_trained(workspace: Project, technique: str, edits: dict[str, object]) -> Outcome:
    """Run the stages of one technique as far as its training: how that ended."""
    workspace.write("messages.csv", corpus({"ham": 120, "spam": 40}))
    workspace.edit(edits | {"techniques": {technique: {}}})
    entry = {"name": technique, "seed": 0}
    for stage, arguments in {"ingest": {}, "techniques": {}, "resample": entry}.items():
        done = workspace.stage_here(stage, **arguments)
        assert done.code == 0, done.stderr
    return workspace.stage_here("train", **entry)


def test_training_before_the_first_commit_says_to_commit(workspace: Project, tiny_encoder: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=workspace.folder, check=True)
    workspace.write(".dvc/config", (ROOT / ".dvc/config").read_bytes())
    assert "git commit" in until_trained(workspace, "tfidf", settings(tiny_encoder)).error
    assert not (workspace.folder / PROJECT.curves / "tfidf/0").exists()


@pytest.fixture
def full_disk(workspace: Project) -> Iterator[Callable[[], None]]:
    """The models' folder is a small disk of its own; calling the fixture's value fills it but for a few kilobytes."""
    models = workspace.folder / PROJECT.models
    models.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", models], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs leave to mount a small disk: {mounted.stderr.strip()}")

    def fill() -> None:
        free = shutil.disk_usage(models).free
        (models / "filler").write_bytes(bytes(free - 16_384))

    yield fill
    subprocess.run(["umount", "--lazy", models], check=True)


@pytest.mark.parametrize("technique", ["tfidf", "baseline"])
def test_a_full_disk_leaves_the_earlier_model_whole(
    workspace: Project, full_disk: Callable[[], None], tiny_encoder: Path, technique: str
) -> None:
    assert until_trained(workspace, technique, settings(tiny_encoder)).code == 0
    folder = workspace.folder / PROJECT.models / technique / "0"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    expected = ballast.load(folder).logits(["bababa", "bebe 7"])

    full_disk()
    failed = workspace.stage("train", technique, "0")
    assert "No space left on device" in failed.error
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert read_manifest(folder)["labels"] == ["ham", "spam"]
    assert (ballast.load(folder).logits(["bababa", "bebe 7"]) == expected).all()
    left = {
        path.name: [each.name for each in (path / technique).iterdir()]
        for path in map(workspace.folder.joinpath, (PROJECT.models, PROJECT.logits, PROJECT.curves))
    }
    assert left == {"models": ["0"], "logits": ["0.npz"], "curves": ["0"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, quick_python: Path) -> Project:
    """A project after its first `dvc repro`, which ran every stage."""
    project = project_copy(tmp_path_factory.mktemp("graph"), quick_python)
    project.write("messages.csv", corpus(COUNTS))
    project.edit(settings(tiny_encoder))
    entries = set[str]().union(*map(of_entry, TECHNIQUES))
    assert project.repro() == entries | {name for name, stage in STAGES.items() if "matrix" not in stage}
    return project


# The tests below edit the same project one after the other, in this order.


def test_every_class_is_in_every_split_and_every_result_is_there(built: Project) -> None:
    ingested = read_json(built.folder / PROJECT.ingest)
    assert ingested["labels"] == COUNTS
    counted = [ingested["splits"]["test"], *ingested["folds"]]
    assert all(count >= 2 for counts in counted for count in counts.values())
    board = read_json(built.folder / "reports/leaderboard.json")
    assert set(board["techniques"]) == set(TECHNIQUES) and board["labels"] == list(COUNTS)
    assert set(board["techniques"]["tfidf"]["corrected"]) >= {"macro_f1", "h.f1", "h.pr_auc", "log_loss"}
    assert board["techniques"]["tfidf"]["corrected"]["macro_f1"]["value"] > 0.5
    assert read_json(built.folder / "selected/model.json")["technique"] in TECHNIQUES


def test_nothing_edited_nothing_runs(built: Project) -> None:
    assert built.repro() == set()


@pytest.mark.slow
def test_a_search_retrains_the_entry_that_it_is_for_and_switched_off_all_is_as_before(built: Project) -> None:
    params = (built.folder / "params.yaml").read_bytes()
    card = built.folder / PROJECT.cards / "class_weight.json"
    before = card.read_bytes()
    spaces = {"class_weight": {"weights": {"low": 0.5, "high": 8.0, "log": True, "per_class": True}}}
    built.edit({"search.trials": 2, "search.spaces": spaces})
    assert built.repro() == {"search", "techniques", "resample", *of_entry("class_weight"), "probe", "compare", *DOWNSTREAM}
    found = read_json(built.folder / PROJECT.search)["class_weight"]
    assert read_json(card)["parameters"] == found["best"] != {"weights": WEIGHTS}
    assert "Hyper-parameter search" in (built.folder / "reports/index.html").read_text(encoding="utf-8")
    built.write("params.yaml", params)
    built.repro()
    assert card.read_bytes() == before


def test_the_file_of_a_technique_reruns_its_entries_and_equal_results_end_it_there(built: Project) -> None:
    before = {path: path.read_bytes() for name in ("logits", "models", "evaluations") for path in files(built, name)}
    with (built.folder / "ballast/techniques/tfidf.py").open("a") as file:
        file.write("# A comment.\n")
    expected = {"sources", "search", "techniques", "resample", *of_entry("tfidf"), *of_entry("tfidf_weak"), "probe", "compare"}
    assert built.repro() - {"report"} == expected
    # Training is deterministic: the same bytes again.
    assert {path: path.read_bytes() for path in before} == before


def test_an_edit_of_a_module_reruns_the_stages_that_run_it_for_every_technique(built: Project) -> None:
    with (built.folder / "ballast/evaluation/post_hoc.py").open("a") as file:
        file.write("# A comment.\n")
    again = {f"evaluate@{name}" for name in TECHNIQUES}
    assert built.repro() == {"sources", *again, "compare", "errors", "levers", "report"}


def test_one_parameter_of_one_entry_and_another_technique(built: Project) -> None:
    built.write("ballast/techniques/mine.py", MINE)
    built.edit({"techniques.tfidf": {"C": 5.0}, "techniques.mine": {}})
    again = {*of_entry("tfidf"), *of_entry("mine")}
    assert built.repro() == {"sources", "search", "techniques", "resample", *again, "probe", "compare", *DOWNSTREAM}
    assert "mine" in read_json(built.folder / "reports/leaderboard.json")["techniques"]
    assert set(on_disk(built, "mine")) == set(FOLDERS)


def test_techniques_removed_leave_nothing_and_rerun_the_comparison_only(built: Project) -> None:
    kept: dict[str, object] = {"mine": {}, "tfidf": {"C": 5.0}}
    built.edit({"techniques": kept})
    assert built.repro() == {"search", "techniques", "resample", "probe", "compare", *DOWNSTREAM}
    assert set(read_json(built.folder / "reports/leaderboard.json")["techniques"]) == set(kept)
    assert [on_disk(built, name) for name in ("class_weight", "tfidf_weak")] == [[], []]
    assert all(on_disk(built, name) for name in kept)


def test_another_seed_trains_that_seed_and_another_prior_in_production_nothing(built: Project) -> None:
    prior = dict.fromkeys(COUNTS, 0.125)
    built.edit({"train.seeds": [0, 1], "production.prior": prior})
    again = {*of_entry("mine", (1,)), *of_entry("tfidf", (1,))}
    assert built.repro() == {"techniques", "resample", *again, "probe", "compare", *DOWNSTREAM}
    assert {path.name for path in (built.folder / PROJECT.models / "tfidf").iterdir()} == {"0", "1"}
    assert read_json(built.folder / "reports/leaderboard.json")["production_prior"] == prior


def test_a_failed_stage_says_how_to_restore_its_outputs(built: Project) -> None:
    removed = [PROJECT.ingest, PROJECT.messages, PROJECT.rejected]
    others = [PROJECT.models / "mine/0/model.safetensors", PROJECT.logits / "tfidf/0.npz", PROJECT.leaderboard]
    before = {path: (built.folder / path).read_bytes() for path in (*removed, *others)}
    built.write("other.csv", corpus(COUNTS).rename(columns={"label": "class"}))
    built.edit({"ingest.path": "other.csv"})
    failed = built.run("dvc", "repro")
    assert failed.code != 0 and ran(failed.stdout) == {"sources", "ingest"}
    assert "error: other.csv: no column 'label' (ingest.label_column)" in failed.stderr
    restored = " ".join(map(str, removed))
    assert f"ingest: or, for the last good ones, run `dvc checkout {restored}`" in failed.stderr
    assert not any((built.folder / path).exists() for path in removed)
    assert {path: (built.folder / path).read_bytes() for path in others} == {path: before[path] for path in others}
    assert built.run("dvc", "checkout", *map(str, removed)).code == 0
    assert {path: (built.folder / path).read_bytes() for path in before} == before
    # `make repro` checks params.yaml before DVC removes anything.
    built.edit({"ingest.path": "messages.csv", "ingest.seed": "none"})
    assert "params.yaml: ingest.seed: " in built.run(sys.executable, "-m", "flows.repro").error
    assert {path: (built.folder / path).read_bytes() for path in before} == before
    built.edit({"ingest.seed": 0})
    assert built.repro() <= {"techniques"}
    assert {path: (built.folder / path).read_bytes() for path in before} == before
