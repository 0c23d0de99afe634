"""What the README says is so: its numbers, its examples, its list of files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import yaml

from stages.files import LEADERBOARD, read_json
from stages.params import Ingest, Search, read_params
from stages.readme import CLASS_PRIOR, PICTURES, README, SCORE, results_table, watch_table, with_block

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / README).read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_the_table_is_that_of_the_committed_leaderboard() -> None:
    board = read_json(ROOT / LEADERBOARD)
    assert set(board["techniques"]) == set(read_params(ROOT / "params.yaml").techniques)
    assert with_block(TEXT, "results", results_table(board)) == TEXT


def test_the_table_of_the_watch_is_that_of_the_benchmarks() -> None:
    assert with_block(TEXT, "watch", watch_table(read_json(ROOT / CLASS_PRIOR), read_json(ROOT / SCORE))) == TEXT


def test_every_module_has_its_clause() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    modules = [Path(path) for path in tracked if not path.endswith("__init__.py")]
    assert len(modules) > 40
    tree = TEXT.partition("## The files")[2]
    assert [str(path) for path in modules if not re.search(rf"^\s*{re.escape(path.name)} +\S", tree, flags=re.M)] == []


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
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert set(re.findall(r"`?make ([a-z]+)", TEXT)) <= targets
    assert all((ROOT / picture).is_file() for picture in PICTURES.values())
