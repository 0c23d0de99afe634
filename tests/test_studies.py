"""Studies under DVC: their variants, what reruns, their results, and where these are shown."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from ballast.exceptions import UserError
from ballast.techniques import build
from stages.pages.report.studies_view import learning_rates
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from stages.store.section import checked
from stages.store.studies import (
    POOLED_NAME,
    Result,
    known_studies,
    read_variants,
    result_path,
    study_results,
    variant_folder,
)
from stages.store.training_sections import Train
from tests.project import ROOT, TINY_TRAINING, Project, corpus, project_copy, ran, yaml

COUNTS = {"ham": 1000, "spam": 100}
DESKTOP, PHONE = (1280, 900), (390, 844)


def path_of(study: str) -> str:
    return f"{PROJECT.studies / study}/dvc.yaml"


def stages_of(study: str, *variants: str) -> set[str]:
    return {f"{path_of(study)}:{stage}" for stage in ("compare", *(f"variant@{each}" for each in variants))}


def on_folds(*variants: str, folds: int = 2) -> list[str]:
    """The stages of variants that are trained once for each fold."""
    return [f"{variant}-{fold}" for variant in variants for fold in range(folds)]


def settings(project: Project, study: str, **changes: Any) -> None:
    """Set keys of a study's params.yaml."""
    path = project.folder / PROJECT.studies / study / "params.yaml"
    with path.open("r+", encoding="utf-8") as file:
        content = yaml.load(file) | changes
        file.seek(0)
        file.truncate()
        yaml.dump(content, file)


def ratios(*wanted: int) -> dict[str, Any]:
    """Variants of the ratio study."""
    return {f"ratio_{ratio}": {"techniques": {"downsample": {"ratio": ratio, "keep": 0.6}}} for ratio in wanted}


def result(project: Project, study: str) -> dict[str, Any]:
    made: dict[str, Any] = read_json(project.folder / result_path(study))
    return made


def row_of(found: dict[str, Any], variant: str, technique: str) -> dict[str, Any]:
    [row] = [row for row in found["rows"] if (row["variant"], row["technique"]) == (variant, technique)]
    return row


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, quick_python: Path) -> Project:
    """A project with small studies; the second encoder is the first in another folder."""
    project = project_copy(tmp_path_factory.mktemp("studies"), quick_python)
    project.write("messages.csv", corpus(COUNTS))
    shutil.copytree(tiny_encoder, project.folder / "other/encoder")
    project.edit(
        {
            "ingest.source": "csv",
            "ingest.path": "messages.csv",
            "techniques": {"baseline": {}, "tfidf": {}},
            "evaluate.resamples": 200,
            "train.model": str(tiny_encoder),
            **{f"train.{key}": value for key, value in TINY_TRAINING.items()},
        }
    )
    for study in ("claims", "separability", "article_protocol"):
        shutil.rmtree(project.folder / PROJECT.studies / study)
    settings(project, "ratio", variants=ratios(1, 10), folds=[0, 1])
    shares = {f"share_{share}": {"ingest": {"train_share": share / 100}} for share in (50, 100)}
    techniques = {"train": {"seeds": [0]}, "techniques": {"tfidf": {}, "baseline": {}}}
    settings(project, "learning_curve", common=techniques, variants=shares, folds=[0, 1])
    settings(project, "encoders", reference=str(tiny_encoder))
    models = [str(tiny_encoder), "other/encoder"]
    settings(project, "encoders", common={"train": {"model": models}, "techniques": {"baseline": {}}})
    folds = {
        f"repeat_{seed}_fold_{index}": {"ingest": {"seed": seed, "folds": {"count": 2, "index": index}}}
        for seed in (0, 1)
        for index in range(2)
    }
    settings(project, "folds", common={"techniques": {"tfidf": {}, "weak": {"technique": "tfidf", "C": 0.01}}}, variants=folds)
    return project


# The tests below run in this order on the same project.


def test_a_study_trains_its_variants_and_compares_them(studied: Project) -> None:
    assert studied.repro(path_of("ratio")) == {
        "sources", "ingest", "validate", "encoder", *stages_of("ratio", *on_folds("ratio_1", "ratio_10")),
    }  # fmt: skip
    found = result(studied, "ratio")
    assert [row["variant"] for row in found["rows"]] == ["ratio_1", "ratio_10"]
    assert [row["at"] for row in found["rows"]] == [1, 10]
    trained = [row["training"] for row in found["rows"]]
    assert [counts["ham"] / counts["spam"] for counts in trained] == [1, 10] and trained[0]["spam"] == trained[1]["spam"]
    # Two folds test every message once.
    assert (found["support"], found["trainings"]) == (read_json(studied.folder / PROJECT.ingest)["labels"]["spam"], 2)
    one, ten = found["rows"]
    assert one["differences"] is None and ten["compared_with"] == "ratio_1 / downsample"
    for family in ("raw", "corrected"):
        recalls = [each["metrics"][family]["spam.recall"] for each in (one, ten)]
        difference = ten["differences"][family]["spam.recall"]
        assert difference["difference"] == pytest.approx(recalls[1]["value"] - recalls[0]["value"])
        assert difference["low"] <= difference["difference"] <= difference["high"]
        assert all(each["low"] <= each["value"] <= each["high"] for each in recalls)
    claim, *others = found["claims"]
    assert claim["claim"].startswith("Recall falls")
    assert claim["design"] == f"study ratio: {found['support']} spam test messages, 2 trainings of each entry"
    assert {len(other["parts"]) for other in others} == {1, 2} and all("ratio" in other["design"] for other in others)
    assert claim["effect"] == pytest.approx(ten["differences"]["raw"]["spam.recall"]["difference"])


def test_logits_are_kept_and_weights_and_texts_are_not(studied: Project) -> None:
    folder = studied.folder / variant_folder("ratio", "ratio_10/fold_1")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        str(PROJECT.messages),
        str(PROJECT.encoder),
        "training.json",
        str(PROJECT.logits / "downsample/1.npz"),
    }
    kept = pd.read_parquet(folder / PROJECT.messages)
    assert list(kept) == ["id", "label", "group", "split", "fold"]


def test_only_what_is_edited_reruns(studied: Project) -> None:
    before = (studied.folder / result_path("ratio")).read_bytes()
    assert studied.repro(path_of("ratio")) == stages_of("ratio")
    assert (studied.folder / result_path("ratio")).read_bytes() == before
    settings(studied, "ratio", variants=ratios(1, 2, 10))
    assert studied.repro(path_of("ratio")) == stages_of("ratio", *on_folds("ratio_2"))
    assert [row["variant"] for row in result(studied, "ratio")["rows"]] == ["ratio_1", "ratio_2", "ratio_10"]
    # A lost result is made anew.
    (studied.folder / result_path("ratio")).unlink()
    assert studied.repro(path_of("ratio")) == stages_of("ratio")


def test_a_bad_variant_stops_before_anything_trains(studied: Project) -> None:
    content = (studied.folder / PROJECT.studies / "learning_curve/params.yaml").read_text(encoding="utf-8")
    variants = yaml.load(content)["variants"]
    settings(studied, "learning_curve", variants={**variants, "last": {"techniques": {"focall": {}}}})
    failed = studied.run("dvc", "repro", path_of("learning_curve"))
    assert failed.code != 0 and "variants.last: techniques.focall: unknown technique 'focall'" in failed.stderr
    assert len(ran(failed.stdout)) == 1 and "train:" not in failed.stderr
    assert not (studied.folder / PROJECT.studies / "learning_curve/variants").exists()
    (studied.folder / PROJECT.studies / "learning_curve/params.yaml").write_text(content, encoding="utf-8")


def test_a_failure_loses_no_other_variant(studied: Project) -> None:
    path = studied.folder / PROJECT.studies / "folds/params.yaml"
    content = path.read_text(encoding="utf-8")
    variants = yaml.load(content)["variants"]
    first, *others = variants
    assert f"{path_of('folds')}:variant@{first}" in studied.repro(f"{path_of('folds')}:variant@{first}")
    settings(studied, "folds", variants={first: variants[first], "too_many": {"ingest": {"folds": {"count": 500, "index": 1}}}})
    failed = studied.run("dvc", "repro", path_of("folds"))
    assert failed.code != 0
    assert re.search(r"ingest.folds: class 'spam' has 100 messages in \d+ groups .* 500 folds need at least 500", failed.stderr)
    path.write_text(content, encoding="utf-8")
    assert studied.repro(path_of("folds")) == stages_of("folds", *others)


def test_folds_are_judged_together_on_all_messages(studied: Project) -> None:
    found = result(studied, "folds")
    assert found["support"] == read_json(studied.folder / PROJECT.ingest)["labels"]["spam"]
    assert [row["variant"] for row in found["rows"]] == [POOLED_NAME] * 2
    # Two repeats of one training: hits counted from the logits of each fold.
    recalls = []
    for seed in (0, 1):
        hits = members = 0
        for index in range(2):
            folder = studied.folder / variant_folder("folds", f"repeat_{seed}_fold_{index}")
            test = pd.read_parquet(folder / PROJECT.messages).query("split == 'test'")
            with np.load(folder / PROJECT.logits / "tfidf/0.npz") as saved:
                called = saved["test"].argmax(axis=1)
            hits += int(((called == 1) & (test["label"] == "spam").to_numpy()).sum())
            members += int((test["label"] == "spam").sum())
        assert members == found["support"]
        recalls.append(hits / members)
    assert row_of(found, POOLED_NAME, "tfidf")["metrics"]["raw"]["spam.recall"]["value"] == pytest.approx(np.mean(recalls))
    weak = row_of(found, POOLED_NAME, "weak")
    assert weak["compared_with"] == f"{POOLED_NAME} / tfidf"
    assert weak["differences"]["raw"]["spam.recall"]["verdict"] in ("worse", "not shown")


def test_a_list_of_encoders_is_a_variant_for_each(studied: Project, tiny_encoder: Path) -> None:
    assert studied.repro(path_of("encoders")) == stages_of("encoders", str(tiny_encoder), "other/encoder")
    one, other = result(studied, "encoders")["rows"]
    assert [one["variant"], other["variant"]] == [str(tiny_encoder), "other/encoder"]
    assert one["encoder"] == other["encoder"] == {key: TINY_TRAINING[key] for key in ("learning_rate", "frozen_layers")}
    # The same weights under another name.
    assert other["differences"]["corrected"]["spam.f1"]["difference"] == 0
    shown = read_json(studied.folder / PROJECT.study_results / "encoders.json")
    assert learning_rates(checked(Result, shown, "")) == ""
    shown["rows"][1]["encoder"]["learning_rate"] = 0.0005
    assert learning_rates(checked(Result, shown, "")) == f"Learning rates: {tiny_encoder} 0.003, other/encoder 0.0005."


def test_a_learning_curve_keeps_the_test_set(studied: Project) -> None:
    assert studied.repro(path_of("learning_curve")) == stages_of("learning_curve", *on_folds("share_50", "share_100"))
    found = result(studied, "learning_curve")
    sizes = [row_of(found, f"share_{share}", "tfidf")["training"]["ham"] for share in (50, 100)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.01)
    assert row_of(found, "share_50", "tfidf")["differences"]["corrected"]["spam.f1"]["verdict"] == "not shown"


def test_the_main_pipeline_runs_no_study_and_takes_up_their_results(studied: Project) -> None:
    stages = studied.repro()
    assert {"compare", "report"} <= stages and not any(name.startswith(str(PROJECT.studies)) for name in stages)
    claims = json.loads((studied.folder / PROJECT.claims).read_bytes())
    assert [claim for claim in claims if (claim["design"] or "").startswith("study ratio")] == result(studied, "ratio")[
        "claims"
    ]
    assert studied.repro() == set()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_report_shows_each_study(studied: Project, browser: Browser, size: tuple[int, int]) -> None:
    shown = browser.new_page(viewport={"width": size[0], "height": size[1]})
    shown.goto((studied.folder / "reports/index.html").as_uri())
    section = shown.locator("#studies")
    assert section.locator("h3").count() == 4
    assert section.locator(".study svg").count() == 6
    assert "From ratio_1 to ratio_10, the spam recall of downsample changes by" in section.inner_text()
    # Which of the answers it is depends on the tiny trainings.
    assert re.search(
        r"(Neither more data nor a technique helps|helps more than (any technique|more data))", section.inner_text()
    )
    assert "From 50% to all of the training data, the spam F1 of baseline changes by" in section.inner_text()
    assert shown.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [size[0], size[0]]
    first = section.locator("tbody:visible tr").first
    row = result(studied, "encoders")["rows"][0]
    assert f"{row['metrics']['corrected']['spam.recall']['value']:.3f}" in first.inner_text()
    shown.close()


def test_results_of_an_earlier_protocol_count_as_missing(studied: Project, tmp_path: Path) -> None:
    shutil.copytree(studied.folder / PROJECT.studies, tmp_path / PROJECT.studies)
    shutil.copy(studied.folder / PROJECT.params, tmp_path / PROJECT.params)
    (tmp_path / PROJECT.ingest).parent.mkdir()
    shutil.copy(studied.folder / PROJECT.ingest, tmp_path / PROJECT.ingest)
    with contextlib.chdir(tmp_path):
        content = read_json(result_path("ratio"))
        write_json(result_path("ratio"), {key: value for key, value in content.items() if key not in ("protocol", "trainings")})
        assert study_results()["ratio"] is None and study_results()["folds"] is not None


def test_results_of_other_data_are_not_shown_and_broken_ones_are_named(studied: Project, tmp_path: Path) -> None:
    shutil.copytree(studied.folder / PROJECT.studies, tmp_path / PROJECT.studies)
    project = Project(tmp_path, ROOT)
    shutil.copy(studied.folder / PROJECT.params, tmp_path / PROJECT.params)
    project.write(str(PROJECT.ingest), {"sha256": "of other data"})
    with contextlib.chdir(tmp_path):
        assert study_results() == dict.fromkeys(known_studies())
        shutil.copy(studied.folder / PROJECT.ingest, PROJECT.ingest)
        assert all(each is not None for each in study_results().values())
        project.edit({"train.epochs": 9})
        assert study_results() == dict.fromkeys(known_studies())
        write_json(result_path("ratio"), {"data": "of other data", "questoin": "?"})
        with pytest.raises(
            UserError, match=r"studies/results/ratio.json: not the result of a study; run `make study NAME=ratio`"
        ):
            study_results()


@pytest.mark.parametrize(
    ("study", "changes", "said"),
    [
        ("ratio", {"referense": "ratio_1"}, r"unknown key 'referense': did you mean 'reference'"),
        ("ratio", {"reference": "ratio_11"}, r"reference: no variant 'ratio_11': did you mean 'ratio_1'"),
        ("ratio", {"variants": {}}, r"no variants; name some, or give a list of encoders"),
        ("ratio", {"variants": {"ratio_1": {"trian": {"seeds": [0]}}}}, r"variants.ratio_1: unknown key 'trian': .*'train'"),
        (
            "folds",
            {"variants": {"a": {"ingest": {"folds": {"count": 3, "index": 3}}}}},
            r"index must be below count, which is 3",
        ),
        (
            "folds",
            {"variants": {"a": {"ingest": {"folds": {"count": 3, "index": 1, "sed": 0}}}}},
            r"unknown key .ingest.folds.sed.: known: count, index",
        ),
        ("ratio", {"folds": [1, 2]}, r"folds must count from 0 to at least 1, such as \[0, 1, 2, 3, 4\]; found \[1, 2\]"),
        ("folds", {"variants": {"a": {"ingest": {"train_share": 0}}}}, r"ingest.train_share: Input should be greater than 0"),
        ("encoders", {"common": {"train": {"model": ["a", "a"]}}}, r"common.train.model: expected different encoders"),
        ("encoders", {"variants": {"a": {}}}, r"common.train.model: expected different encoders and no variants"),
    ],
)
def test_bad_settings_are_named(workspace: Project, study: str, changes: dict[str, Any], said: str) -> None:
    shutil.copytree(ROOT / PROJECT.studies, workspace.folder / PROJECT.studies)
    write_json(workspace.folder / PROJECT.ingest, {"labels": COUNTS})
    settings(workspace, study, **changes)
    with contextlib.chdir(workspace.folder), pytest.raises(UserError, match=said) as error:
        read_variants(study)
    assert str(error.value).startswith(f"{PROJECT.studies / study}/params.yaml: ")


def test_the_main_settings_take_one_encoder(workspace: Project) -> None:
    workspace.edit({"train.model": ["minilm", "roberta-base"]})
    assert "train.model: expected one encoder; a list" in workspace.stage_here("ingest").error


def test_the_studies_of_the_repository_are_read(workspace: Project) -> None:
    shutil.copytree(ROOT / PROJECT.studies, workspace.folder / PROJECT.studies)
    shutil.copy(ROOT / PROJECT.params, workspace.folder / PROJECT.params)
    write_json(workspace.folder / PROJECT.ingest, {"labels": COUNTS})
    write_json(workspace.folder / PROJECT.encoder, {"learning_rate": 5e-4, "frozen_layers": 5, "auto": list(Train.AUTO)})
    with contextlib.chdir(workspace.folder):
        variants = {study: read_variants(study) for study in known_studies()}
    assert {study: len(each) for study, each in variants.items()} == {
        "article_protocol": 1, "claims": 5, "encoders": 2, "folds": 5, "learning_curve": 20, "ratio": 50, "separability": 10,
    }  # fmt: skip
    seeds = {"encoders": [0, 1, 2], "folds": [0, 1, 2], "article_protocol": [0, 1, 2, 3, 4]}
    for study, each in variants.items():
        for name, variant in each.items():
            fold = variant.params.ingest.folds
            assert variant.params.train.seeds == seeds.get(study, [fold.index] if fold else [])
            assert study in seeds or (name == f"{variant.key}/fold_{fold.index}" and fold.count == 5)
            assert variant.params.production.prior == {"ham": 10 / 11, "spam": 1 / 11}


@pytest.mark.parametrize("counts", [(700, 70), (500, 400, 300, 60)])
def test_positives_stay_as_they_are_and_ratios_are_nested(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = list(map(str, range(len(counts))))
    rarest, previous = len(counts) - 1, set[int]()
    for ratio in (1, 2, 5, 10):
        technique = build("downsample", np.array(counts), names, {"ratio": ratio, "keep": 0.6})
        rows = technique.sample(labels, np.random.default_rng(3))[0]
        kept = round(0.6 * counts[-1])
        assert np.bincount(labels[rows]).tolist() == [*(min(count, ratio * kept) for count in counts[:-1]), kept]
        assert previous <= set(rows.tolist())
        assert not previous or {row for row in previous if labels[row] == rarest} == set(rows[labels[rows] == rarest].tolist())
        previous = set(rows.tolist())


def test_a_ratio_that_the_data_cannot_give_is_an_error_that_says_what_would_do() -> None:
    with pytest.raises(UserError, match="needs 700 messages beside the 100 of 'spam', but the largest class has 690") as error:
        build("downsample", np.array([690, 100]), ["ham", "spam"], {"ratio": 7.0})
    keep = float(re.findall(r"keep must be at most ([\d.]+)", str(error.value))[0])
    build("downsample", np.array([690, 100]), ["ham", "spam"], {"ratio": 7.0, "keep": keep})
