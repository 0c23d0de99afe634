"""What the README and the security page say is so: their numbers and examples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages.pages.readme import (
    BENCHMARKS,
    CLASS_PRIOR,
    PICTURES,
    README,
    SECURITY,
    benchmarks_table,
    results_table,
    security_page,
    watch_table,
    with_block,
)
from stages.store.files import LEADERBOARD, read_json, write_json
from stages.store.params import Ingest, Search, read_params

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / README).read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_the_table_is_that_of_the_committed_leaderboard() -> None:
    board = read_json(ROOT / LEADERBOARD)
    assert set(board["techniques"]) == set(read_params(ROOT / "params.yaml").techniques)
    assert with_block(TEXT, "results", results_table(board)) == TEXT


def test_the_table_of_the_watch_is_that_of_the_benchmarks() -> None:
    assert with_block(TEXT, "watch", watch_table(read_json(ROOT / CLASS_PRIOR))) == TEXT


def test_the_table_of_speed_is_that_of_the_benchmarks() -> None:
    found = {name: read_json(ROOT / path) for name, path in BENCHMARKS.items() if (ROOT / path).exists()}
    assert with_block(TEXT, "benchmarks", benchmarks_table(found)) == TEXT
    for each in found.values():
        assert f"| {each['device']}, {each['cpus']} cores, {each['date']} |" in TEXT
    assert len(re.findall(r"^\|.* cores, [0-9-]+ \|$", TEXT, flags=re.M)) == len(found)


def test_a_benchmark_that_was_never_run_or_lacks_a_number_has_no_row() -> None:
    where = {"device": "a processor", "cpus": 2, "date": "2026-01-02"}
    trained = {
        "ratio_to_defaults": 12.34,
        "ratio_to_tuned": 3.21,
        "messages_per_second": 1234.5,
        "share_of_matrix_rate": 0.4,
        "f1_difference": {"value": 0.001, "low": -0.01, "high": 0.012},
        "f1_difference_to_tuned": {"value": 0.002, "low": -0.02, "high": 0.013},
        "same_layers": {"ratio": 4.56},
        "seeds": 3,
        "bf16": False,
        "params": {"frozen_layers": 5, "learning_rate": 1e-4},
        **where,
    }
    [row] = [line for line in benchmarks_table({"train": trained}).splitlines() if "a processor" in line]
    assert all(each in row for each in ("12.3 times", "3.2 times", "+0.001 [-0.010, +0.012]", "4.6 times", "40%", "2026-01-02"))
    assert "a processor" not in benchmarks_table({"train": {key: trained[key] for key in trained if key != "ratio_to_tuned"}})
    families = {
        "train": {"stages": 2, "seconds": 60.0, "training": 30.0, "scoring": 20.0, "start": 10.0},
        "dvc": {"stages": 4, "seconds": 40.0},
    }
    whole = {"seconds": 100.0, "techniques": 2, "second_repro_seconds": 2.0, "second_flow_seconds": 9.0, "families": families}
    lines = benchmarks_table({"overhead": {"full": whole, **where}}).splitlines()
    assert lines[-4:] == [
        "| DVC itself | 4 | 40 | 40% |",
        "| train: training | 2 | 30 | 30% |",
        "| train: scoring | 2 | 20 | 20% |",
        "| train: start | 2 | 10 | 10% |",
    ]


def test_the_security_page_has_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    kills = {"tried": 50, "counts": {"kills": 50, "lost": 0}, "command": "make test-kills", "date": "2026-01-02"}
    for name, found in (("kills", kills), ("bad_inputs", {"tried": 1234, "wrong": 0, "share": 0.5, "command": "pytest"})):
        write_json(tmp_path / f"benchmarks/{name}.json", found)
    block = "<!-- {0}: made by {1}make readme{1} -->\n{2}\n<!-- end of {0} -->\nbetween\n"
    page = "".join(block.format(*each, "old") for each in (("kills", "`"), ("flips", "`"), ("inputs", "")))
    first, second = "| counted | |\n|---|---|\n| ", "`make test-kills` (2026-01-02)"
    filled = security_page(page)
    assert filled == "".join(
        [
            block.format("kills", "`", f"{first}kills | 50 |\n| lost | 0 |\n\n{second}"),
            block.format("flips", "`", "old"),
            block.format("inputs", "", f"{first}tried | 1,234 |\n| wrong | 0 |\n\n`pytest`"),
        ]
    )
    assert security_page(filled) == filled


def test_the_security_page_is_that_of_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = SECURITY.read_text(encoding="utf-8") if SECURITY.exists() else ""
    assert security_page(text) == text


def test_the_example_technique_builds() -> None:
    [source] = [each for each in examples("python") if "def build" in each]
    scope: dict = {}
    exec(compile(source, "README.md", "exec"), scope)
    technique = scope["build"](np.array([90, 10]), ["ham", "spam"], power=1.0)
    np.testing.assert_allclose(technique.class_weights, [100 / 180, 5.0])


def test_the_example_settings_are_accepted() -> None:
    ingest, search = map(yaml.safe_load, examples("yaml"))
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert Ingest.model_validate(shipped["ingest"] | ingest["ingest"]).text_column == "body"
    assert set(Search.model_validate(shipped["search"] | search["search"]).spaces) <= set(shipped["techniques"])


def test_the_make_targets_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert set(re.findall(r"`?make ([a-z-]+)", TEXT)) <= targets
    assert all((ROOT / picture).is_file() for picture in PICTURES.values())
