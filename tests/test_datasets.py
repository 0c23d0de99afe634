"""The benchmark across data sets on tiny data: it resumes, names what is missing, and shows the figures of the leaderboard."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.store.across_data_sets import across_path, data_set_path, seconds_path
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.project import ROOT, TINY_TRAINING, Project, corpus, workspace, yaml

SETTINGS = PROJECT.studies / "datasets/params.yaml"
ENTRIES = {"baseline": {}, "tfidf": {}, "majority": {}}
EASY, MANY = {"ham": 300, "spam": 60}, {f"kind {letter}": count for letter, count in zip("abc", (200, 100, 40), strict=True)}


def data_set(**more: Any) -> dict[str, Any]:
    about = {"tests": "made up", "address": "https://example.org/data", "licence": "MIT"}
    return {**about, "file": {"text_column": "text", "label_column": "label"}, **more}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Project:
    made = workspace(tmp_path_factory.mktemp("datasets"))
    tiny = {f"train.{key}": value for key, value in TINY_TRAINING.items()}
    made.edit({"train.model": str(tiny_encoder), "evaluate.resamples": 200, **tiny})
    (made.folder / "data/raw").mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / SETTINGS.parent, made.folder / SETTINGS.parent, ignore=shutil.ignore_patterns("variants"))
    made.write("data/raw/easy.csv", corpus(EASY))
    made.write("data/raw/many.csv", corpus(MANY, seed=1))
    sets = {"easy": data_set(), "gone": data_set(), "many": data_set(params={"ingest": {"train_share": 0.8}})}
    write_settings(made, sets)
    return made


def write_settings(project: Project, sets: dict[str, Any]) -> None:
    path = project.folder / SETTINGS
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["common"] |= {"techniques": ENTRIES, "train": {"seeds": [0, 1]}}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump({**content, "data_sets": sets}, file)


def run(project: Project, *names: str) -> str:
    done = project.stage_here("datasets", names=list(names))
    assert done.code == 0, done.stderr
    return str(done.stderr)


def result(project: Project, name: str) -> dict[str, Any]:
    content: dict[str, Any] = read_json(project.folder / data_set_path(name))
    return content


# The tests below run in this order on the same project.


def test_it_runs_what_it_finds_and_says_what_is_missing(project: Project) -> None:
    said = run(project)
    assert "gone: missing: no data/raw/gone.csv (columns label, text); the data are at https://example.org/data" in said
    assert "datasets: 2 of 3 data sets: studies/results/datasets.json" in said
    across = read_json(project.folder / across_path())
    assert set(across["data_sets"]) == {"easy", "many"} and set(across["missing"]) == {"gone"}
    easy, many = result(project, "easy"), result(project, "many")
    assert (easy["rarest"], many["rarest"], many["classes"], many["tail"]) == ("spam", "kind c", 3, ["kind c"])
    assert many["train"]["messages"] < 0.8 * 0.8 * 340 and set(easy["entries"]) == set(ENTRIES)
    assert "seconds" not in json.dumps([across, easy])


def test_the_figures_are_those_of_the_leaderboard(project: Project) -> None:
    board = read_json(project.folder / "studies/datasets/variants/many" / PROJECT.leaderboard)
    entry, row = result(project, "many")["entries"]["tfidf"], board["techniques"]["tfidf"]
    for family in ("corrected", "operating_point"):
        assert entry["values"][family]["rare_f1"] == row[family]["kind c.f1"]
        compared = row["comparison"][family]["metrics"]["macro_f1"]
        assert entry["differences"][family]["macro_f1"] == {
            key: compared[key] for key in entry["differences"][family]["macro_f1"]
        }
        # Of three classes, the tail is the rarest one: the same figure by way of the draws.
        tail, rare = (entry["differences"][family][metric] for metric in ("tail_macro_f1", "rare_f1"))
        assert tail["difference"] == pytest.approx(rare["difference"]) and tail["verdict"] == rare["verdict"]
    assert "log_loss" in entry["values"]["corrected"] and "log_loss" not in entry["values"]["operating_point"]
    # What a threshold gains is the difference of two rows of the leaderboard.
    base = board["techniques"]["baseline"]
    gain = base["operating_point"]["kind c.f1"]["value"] - base["corrected"]["kind c.f1"]["value"]
    assert result(project, "many")["threshold"]["rare_f1"]["difference"] == pytest.approx(gain)
    over = entry["over_threshold"]["rare_f1"]["difference"]
    assert over == pytest.approx(row["corrected"]["kind c.f1"]["value"] - base["operating_point"]["kind c.f1"]["value"])
    assert entry["values"]["corrected"]["accuracy"]["value"] == row["corrected"]["accuracy"]["value"]


def test_the_seconds_are_in_a_table_apart(project: Project) -> None:
    with (project.folder / seconds_path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["data_set"], row["entry"]) for row in rows] == [
        (name, entry) for name in ("easy", "many") for entry in sorted(ENTRIES)
    ]
    assert all(float(row["training_seconds"]) >= 0 and "CPUs" in row["machine"] for row in rows)


def test_a_second_run_does_nothing(project: Project) -> None:
    paths = [project.folder / path for path in (data_set_path("easy"), data_set_path("many"), across_path(), seconds_path())]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    said = run(project)
    assert said.count("up to date") == 2 and "train:" not in said
    assert [path.read_bytes() for path in paths] == [content for content, _ in before]
    assert paths[0].stat().st_mtime_ns == before[0][1]


def test_a_lost_result_is_made_again_to_the_last_digit_without_training(project: Project) -> None:
    path = project.folder / data_set_path("easy")
    before = path.read_bytes()
    path.unlink()
    said = run(project, "easy")
    assert "train:" not in said and path.read_bytes() == before
    # Without its cached logits, it is trained again, with the same result.
    path.unlink()
    (project.folder / "studies/datasets/variants/easy/made_with.json").unlink()
    said = run(project, "easy")
    assert "train: baseline seed 1" in said and path.read_bytes() == before


def test_an_interrupted_run_continues_after_the_last_finished_entry(project: Project) -> None:
    folder = project.folder / "studies/datasets/variants/many"
    before = (project.folder / data_set_path("many")).read_bytes()
    (project.folder / data_set_path("many")).unlink()
    for entry in ("tfidf", "majority"):
        (folder / PROJECT.probes / f"{entry}.json").unlink()
        (folder / PROJECT.logits / entry / "1.npz").unlink()
    said = run(project, "many")
    trained = {line.split(":")[1].split(" seed")[0].strip() for line in said.splitlines() if line.startswith("train: ")}
    assert trained == {"tfidf", "majority"}
    assert (project.folder / data_set_path("many")).read_bytes() == before


def test_a_result_is_up_to_date_for_its_file_and_settings_only(project: Project) -> None:
    raw = project.folder / "data/raw/easy.csv"
    content = raw.read_bytes()
    raw.unlink()
    assert "easy: up to date" in run(project, "easy")
    raw.write_bytes(content.replace(b"ham", b"Ham"))
    said = run(project, "easy")
    assert "easy: 3 entries, 2 seeds" in said
    assert result(project, "easy")["entries"]["baseline"]["values"]["corrected"]["rare_f1"]
    raw.write_bytes(content)


def test_a_damaged_result_is_named_and_stops_no_other(project: Project) -> None:
    path = project.folder / data_set_path("many")
    content = read_json(path)
    path.write_bytes(path.read_bytes().replace(b'"classes": 3', b'"classes": 4'))
    failed = project.stage_here("datasets", names=[])
    assert failed.code != 0
    assert "datasets/many.json: its sha256 is wrong; delete it, then run `make study NAME=datasets`" in failed.stderr
    assert set(read_json(project.folder / across_path())["data_sets"]) == {"easy"}
    write_json(path, {**content, "surprise": 1})
    failed = project.stage_here("datasets", names=[])
    assert "many.json: not the result of a data set; run `make study NAME=datasets`: unknown key 'surprise'" in failed.stderr
    write_json(path, {**content, "protocol": 0})
    assert "many: 3 entries" in run(project)


def test_a_broken_file_of_data_is_named_and_stops_no_other(project: Project) -> None:
    project.write("data/raw/gone.csv", corpus({"only": 50}))
    failed = project.stage_here("datasets", names=[])
    assert failed.code != 0 and "1 of 3 data sets failed; the first is gone: " in failed.stderr
    assert "a single class" in failed.stderr and "2 of 3 data sets" in failed.stderr
    (project.folder / "data/raw/gone.csv").unlink()


def test_unknown_keys_and_entries_are_named(project: Project) -> None:
    path = project.folder / SETTINGS
    content = path.read_text(encoding="utf-8")
    write_settings(project, {"easy": data_set(params={"ingest": {"trian_share": 0.5}})})
    failed = project.stage_here("datasets", names=[])
    assert "params.yaml: data_sets.easy: unknown key 'ingest.trian_share': did you mean 'train_share'" in failed.stderr
    write_settings(project, {"easy": data_set(license="MIT")})
    failed = project.stage_here("datasets", names=[])
    assert "unknown key 'data_sets.easy.license': did you mean 'licence'" in failed.stderr
    path.write_text(content, encoding="utf-8")
    assert np.isfinite(result(project, "easy")["share"])
