"""Perturbed texts: the functions, the stage that scores them, and how far probabilities fall."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballast.data.perturbations import HOMOGLYPHS, homoglyphs, leet, perturbations, probability_drops, spacing
from ballast.exceptions import UserError
from stages.compare import PERTURBATION_COLUMNS, perturbation_table
from stages.pages.report.errors_view import perturbed
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import TINY_TRAINING, WORDS, Project, corpus

ALL = ["leet", "spacing", "homoglyphs", "padding"]
TEXTS = [" ".join(WORDS[:3]), " ".join(WORDS[5:9]), "12345 67"]


def test_what_each_does_to_a_text() -> None:
    changes = perturbations(ALL, "see you")
    assert {name: change("FREE prize, ok 80082") for name, change in changes.items()} == {
        "leet": "FR33 pr1z3, 0k 80082",
        "spacing": "F R E E  p r i z e,  o k  80082",
        "homoglyphs": "FRЕЕ рrіzе, оk 80082",
        "padding": "FREE prize, ok 80082 see you",
    }


def test_look_alikes_are_cyrillic_and_stand_for_latin() -> None:
    for latin, other in HOMOGLYPHS.items():
        assert isinstance(other, int)
        assert unicodedata.name(chr(latin)).startswith("LATIN") and unicodedata.name(chr(other)).startswith("CYRILLIC")
        assert chr(latin).isupper() == chr(other).isupper()


@given(st.text())
def test_nothing_else_changes(text: str) -> None:
    assert len(leet(text)) == len(homoglyphs(text)) == len(text)
    assert "".join(spacing(text).split()) == "".join(text.split())
    assert leet(leet(text)) == leet(text) and homoglyphs(homoglyphs(text)) == homoglyphs(text)


def test_an_unknown_name_is_an_error_before_anything_trains(workspace: Project) -> None:
    with pytest.raises(UserError, match="unknown perturbation 'homoglyph': did you mean 'homoglyphs'"):
        perturbations(["homoglyph"], "see you")
    workspace.write("messages.csv", corpus({"ham": 60, "spam": 30}))
    workspace.edit({"techniques": {"majority": {}}, "probe.perturbations": ["leat"]})
    assert workspace.stage_here("ingest").code == 0
    error = workspace.stage_here("techniques").error
    assert "params.yaml: probe.perturbations: unknown perturbation 'leat': did you mean 'leet'?" in error


def test_falls_are_those_of_the_texts_that_were_called_the_class() -> None:
    original = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    changed = np.array([[0.3, 0.7], [0.9, 0.1], [0.8, 0.2]])
    found = {key: values.tolist() for key, values in probability_drops(original, changed).items()}
    assert found["called"] == [1, 2] and found["still"] == [1, 1]
    assert found["before"] == pytest.approx([0.9, 0.7]) and found["after"] == pytest.approx([0.8, 0.4])
    nothing = probability_drops(np.empty((0, 2)), np.empty((0, 2)))
    assert nothing["called"].tolist() == [0, 0] and np.isnan(nothing["before"]).all()


def trained(project: Project, techniques: dict[str, object], edits: dict[str, object]) -> None:
    """Train techniques with one seed."""
    project.write("messages.csv", corpus({"ham": 120, "spam": 40}))
    project.edit({"techniques": techniques, "probe.texts": TEXTS, "probe.padding": WORDS[20], **edits})
    assert project.stage_here("ingest").code == project.stage_here("techniques").code == 0
    validated = project.stage_here("validate")
    assert validated.code == 0, validated.stderr
    for name in techniques:
        for stage in ("resample", "train"):
            done = project.stage_here(stage, name=name, seed=0)
            assert done.code == 0, done.stderr


def test_texts_that_would_be_cut_are_errors_and_perturbed_ones_are_left_out(workspace: Project, tiny_encoder: Path) -> None:
    edits = {"train.model": str(tiny_encoder), **{f"train.{key}": value for key, value in TINY_TRAINING.items()}}
    trained(workspace, {"baseline": {}, "smote": {}, "majority": {}}, edits | {"train.max_length": 12})
    done = workspace.stage_here("probe")
    assert done.code == 0, done.stderr
    probe = read_json(workspace.folder / PROJECT.probes / "baseline.json")
    assert probe["texts"] == TEXTS and set(probe["perturbed"]) == set(ALL)
    # Each word of the corpus is one token; apart, each of its letters is one.
    spaced, leeted = probe["perturbed"]["spacing"], probe["perturbed"]["leet"]
    assert spaced["skipped"] == {"0": "too long", "1": "too long", "2": "unchanged"} and spaced["scored"] == []
    assert spaced["texts"][0] == "  ".join(" ".join(word) for word in TEXTS[0].split())
    assert leeted["skipped"]["2"] == "unchanged" and len(leeted["logits"]["0"]) == len(leeted["scored"])

    workspace.edit({"probe.texts": [TEXTS[0], " ".join(WORDS[:14])]})
    for name in ("baseline", "smote"):
        workspace.edit({"techniques": {name: {}}})
        error = workspace.stage_here("probe").error
        assert (
            f"probe.texts entry 2 has 16 tokens, but {name} reads 12 (train.max_length and train.long_texts); shorten it"
            in error
        )
    assert read_json(workspace.folder / PROJECT.probes / "baseline.json") == probe
    workspace.edit({"techniques": {"majority": {}}})
    assert workspace.stage_here("probe").code == 0, "it reads texts of any length"


def evaluation_of(labels: list[str]) -> dict[str, object]:
    even = dict.fromkeys(labels, 1 / len(labels))
    return {"production_prior": even, "fitted": {"effective_prior": even}}


def test_the_table_and_the_page_count_what_was_left_out() -> None:
    labels = ["ham", "spam"]
    probe = {
        "texts": ["NA", "win", "ok"],
        "labels": labels,
        "logits": {seed: [[0.0, 3.0], [0.0, 2.0], [3.0, 0.0]] for seed in ("0", "1")},
        "perturbed": {
            "leet": {
                "texts": ["N4", "w1n", "ok"],
                "scored": [0, 1],
                "skipped": {"2": "unchanged"},
                "logits": {seed: [[0.0, 1.0], [2.0, 0.0]] for seed in ("0", "1")},
            },
            "spacing": {
                "texts": ["N A", "w i n", "o k"],
                "scored": [],
                "skipped": {"0": "too long", "1": "too long", "2": "unchanged"},
                "logits": {"0": [], "1": []},
            },
        },
    }
    table = perturbation_table("baseline", probe, evaluation_of(labels))
    assert list(table.columns) == PERTURBATION_COLUMNS and len(table) == 2 * 2 * 2 * 3
    assert table["raw"].isna().sum() == 2 * 2 * 4
    rows = [(seed, text, label) for seed in (0, 1) for text in probe["texts"] for label in labels]
    odds = {"NA": 3.0, "win": 2.0, "ok": -3.0}
    original = pd.DataFrame(rows, columns=["seed", "text", "label"]).assign(technique="baseline")
    sign = np.where(original["label"] == "spam", 1, -1)
    original["raw"] = original["corrected"] = 1 / (1 + np.exp(-sign * original["text"].map(odds).to_numpy()))
    shown = perturbed(original, table, ["baseline"], labels, list(enumerate(labels)))
    assert shown is not None and shown["kinds"] == ["leet", "spacing"]
    spam = next(each for each in shown["tables"] if each["label"] == 1 and each["family"] == "raw")
    leeted, spaced = spam["rows"][0]["cells"]
    assert (leeted["n_predicted"], leeted["n_unchanged"], leeted["skipped"]) == (2, 1, "1 unchanged")
    before, after = (0.952574 + 0.880797) / 2, (0.731059 + 0.119203) / 2
    assert leeted["before"] == pytest.approx(before, abs=1e-5) and leeted["after"] == pytest.approx(after, abs=1e-5)
    assert leeted["change"] == round(100 * (after - before))
    assert (spaced["n_predicted"], spaced["change"], spaced["skipped"]) == (0, 0, "2 too long, 1 unchanged")


def test_without_perturbations_there_is_no_table() -> None:
    probe = {"texts": ["ok"], "labels": ["ham", "spam"], "logits": {"0": [[0.0, 1.0]]}, "perturbed": {}}
    table = perturbation_table("baseline", probe, evaluation_of(["ham", "spam"]))
    assert list(table.columns) == PERTURBATION_COLUMNS and len(table) == 0
    assert perturbed(table, table, ["baseline"], ["ham", "spam"], [(0, "ham"), (1, "spam")]) is None
