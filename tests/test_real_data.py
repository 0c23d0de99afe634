"""Two techniques, one epoch, on the real SMS Spam Collection with the embedded encoder: from the source to the report."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pytest

import ballast
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.sms_spam import FILE, SHA256, restored
from tests.project import ROOT, Project, project_copy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = project_copy(tmp_path_factory.mktemp("real"))
    project.edit({"techniques": {"baseline": {}, "tfidf": {}}, "train.epochs": 1, "evaluate.resamples": 500})
    if (ROOT / "data/raw" / FILE).is_file():
        shutil.copy(ROOT / "data/raw" / FILE, project.folder / "data/raw" / FILE)
    done = project.run("dvc", "repro")
    assert done.code == 0, done.stderr
    assert project.repro() == set()
    return project


def test_the_source_is_the_canonical_one(built: Project) -> None:
    [raw] = (built.folder / "data/raw").glob(FILE)
    assert hashlib.sha256(raw.read_bytes()).hexdigest() == SHA256
    ingested = read_json(built.folder / PROJECT.ingest)
    assert (ingested["rows"], ingested["kept"], ingested["labels"]) == (5574, 5171, {"ham": 4518, "spam": 653})


def test_the_package_is_restored_where_its_words_were_replaced() -> None:
    """Line 199 held 'ham' in its text; line 200 does not, so a 'good' there stays."""
    packaged = b"\r\n".join([b"good\tok"] * 198 + [b"good\tbirming-good good", b"bad\ta good offer"]) + b"\r\n"
    lines = restored(packaged).decode().splitlines()
    assert lines[198:] == ["ham\tbirming-ham good", "spam\ta good offer"]


def test_both_models_tell_spam_from_ham(built: Project) -> None:
    board = read_json(built.folder / PROJECT.leaderboard)
    assert set(board["techniques"]) == {"baseline", "tfidf"}
    for name, least in {"baseline": 0.88, "tfidf": 0.92}.items():
        f1 = board["techniques"][name]["corrected"]["spam.f1"]
        assert least < f1["value"] and 0.8 < f1["low"] < f1["high"] <= 1, (name, f1)
    with (built.folder / PROJECT.probe_table).open() as file:
        rows = [row for row in csv.DictReader(file) if row["text"].startswith("URGENT") and row["label"] == "spam"]
    assert len(rows) == 2 and all(float(row["corrected"]) > 0.5 for row in rows)


def test_models_load_and_agree_with_the_probe(built: Project) -> None:
    for name in ("baseline", "tfidf"):
        model = ballast.load(built.folder / "models" / name / "0")
        spam, ham = model.logits(["URGENT: you won a free prize, call 09061701461 now", "see you at dinner tonight"])
        assert model.labels == ["ham", "spam"] and spam[1] > spam[0] and ham[0] > ham[1]


def test_metrics_plots_and_experiments_show(built: Project) -> None:
    shown = built.run("dvc", "metrics", "show", "--md")
    assert shown.code == 0 and {"metrics/baseline.json", "selected_f1", "test_f1"} <= set(shown.stdout.split()), shown.stdout
    drawn = built.run("dvc", "plots", "show", "-o", "drawn")
    page = Path(built.folder / "drawn/index.html").read_text(encoding="utf-8")
    assert drawn.code == 0 and '"technique": "tfidf"' in page and "Training loss" in page, drawn.stderr
    experiments = built.run("dvc", "exp", "show", "--csv")
    assert experiments.code == 0 and "selected_f1" in experiments.stdout, experiments.stderr
