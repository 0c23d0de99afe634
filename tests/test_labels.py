"""One name for each label in files, settings and feedback; missing labels; classes that are too small."""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ballast.data.class_sizes import check_class_sizes
from ballast.data.label_names import clean_label, label_meant, look_alike, same_label, spelled
from ballast.exceptions import UserError
from ballast.io.yaml_text import yaml_value
from stages.pages.words import decision_rule, metric_name, natural_order, operating_point_rule
from stages.production.feedback import read_labels
from stages.store.files import read_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.training_labels import training_labels
from stages.validate import expected_prior
from tests.project import Outcome, Project, corpus

FORMATS = ("csv", "tsv", "jsonl", "parquet")
EDGES = " \t\n\u00a0\u3000\u200b\u200d\u2060\ufeff\u202a\u202c\u00ad"


def ingested(workspace: Project, table: pd.DataFrame, name: str = "a.csv", **settings: Any) -> tuple[Outcome, dict[str, int]]:
    """The outcome of ingesting a table, and the messages of each label."""
    workspace.write(name, table)
    keys = {f"ingest.{key}": value for key, value in settings.items()}
    workspace.edit({"ingest.source": "file", "ingest.path": name, **keys})
    done = workspace.stage_here("ingest")
    return done, {} if done.code else read_json(workspace.folder / PROJECT.ingest)["labels"]


def respelled(table: pd.DataFrame, **spellings: list[str]) -> pd.DataFrame:
    """The table with the rows of a label in several spellings, in turn."""
    labels = table["label"].astype(object).to_numpy(copy=True)
    for label, names in spellings.items():
        rows = np.flatnonzero(table["label"] == label)
        labels[rows] = [names[at % len(names)] for at in range(len(rows))]
    return table.assign(label=labels)


# Spelling


@given(st.text(alphabet=EDGES), st.text(alphabet="aé😀\u0301 \u200d", min_size=1).map(lambda text: f"x{text}x"), st.text(EDGES))
def test_what_surrounds_a_label_is_no_part_of_it(before: str, label: str, after: str) -> None:
    cleaned = clean_label(before + unicodedata.normalize("NFD", label) + after)
    assert cleaned == unicodedata.normalize("NFC", label)
    assert clean_label(cleaned) == cleaned


@pytest.mark.parametrize("label", ["", " ", "\u200b", "\u3164", "\u2800", "\x07", "\ufeff\u00a0", "\u202a\u202c"])
def test_a_label_in_which_nothing_is_visible_is_missing(label: str) -> None:
    assert clean_label(label) == ""


def test_a_flag_of_tag_characters_stays_whole() -> None:
    england = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert clean_label(f" {england} ") == england


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("spam ", ["ham", "spam"], "spam"),
        (True, ["False", "True"], "True"),
        ("TRUE", ["false", "true"], "true"),
        ("True", ["True", "true"], "True"),
        ("tRue", ["True", "true"], None),
        (1, ["0", "1"], "1"),
        ("1.0", ["0", "1"], "1"),
        ("1", ["0.0", "1.0"], "1.0"),
        ("1", ["01", "02"], None),
        ("yes", ["true", "false"], None),
        ("Spam", ["ham", "spam"], None),
    ],
)
def test_the_label_that_a_name_means(name: object, labels: list[str], expected: str | None) -> None:
    assert same_label(name, labels) == expected


def test_two_keys_for_one_label_are_an_error_and_an_exact_key_comes_first() -> None:
    with pytest.raises(UserError, match="prior: the keys 'spam' and 'spam ' mean the same label 'spam'"):
        spelled({"spam": 0.1, "spam ": 0.9}, ["ham", "spam"], "prior")
    assert spelled({"true": 1, "True": 2}, ["True", "true"], "costs") == {"true": 1, "True": 2}
    assert spelled({"1": 1, "1.0": 2}, ["1"], "costs") == {"1": 1, "1.0": 2}


def test_labels_that_look_alike() -> None:
    assert look_alike(["ham", "Ham", "not spam", "not  spam", "ＨＡＭ", "eggs"]) == [
        ["Ham", "ham", "ＨＡＭ"],
        ["not  spam", "not spam"],
    ]


def test_a_label_of_a_person_is_one_of_the_model_before_it_is_one_of_the_file() -> None:
    values = {"no": "fine", "yes": "fraud", "off": "no"}
    labels = ["fine", "fraud", "no"]
    assert [label_meant(name, labels, values) for name in ("no", "yes", "off ", "fine", "on")] == [
        "no",
        "fraud",
        "no",
        "fine",
        None,
    ]


# Files


@pytest.mark.parametrize("ending", FORMATS)
def test_spellings_of_a_label_are_one_class_and_the_line_names_them(workspace: Project, ending: str) -> None:
    cafe = "cafe\u0301"
    spellings = {"spam": ["spam", "spam ", "\u00a0spam", "spam\u200b"], "caf\u00e9": ["caf\u00e9", cafe]}
    table = respelled(corpus({"ham": 40, "spam": 40, "caf\u00e9": 20}, twins=0), **spellings)
    done, labels = ingested(workspace, table, f"a.{ending}")
    assert labels == {"caf\u00e9": 20, "ham": 40, "spam": 40}, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "labels joined" in line]
    for part in ("'spam ' (10) -> 'spam'", r"'\xa0spam' (10)", r"'spam\u200b' (10)", r"'cafe\u0301' (10) -> 'café'"):
        assert part in line
    assert set(pd.read_parquet(workspace.folder / PROJECT.messages)["label"]) == set(labels)


def test_blanks_around_all_of_a_label_are_stripped_and_named(workspace: Project) -> None:
    done, labels = ingested(workspace, respelled(corpus({"ham": 30, "spam": 20}, twins=0), spam=[" spam"]))
    assert labels == {"ham": 30, "spam": 20}
    assert "ingest: labels stripped: ' spam' (20) -> 'spam'" in done.stderr and "joined" not in done.stderr


def test_labels_in_another_case_are_classes_of_their_own_with_a_warning(workspace: Project) -> None:
    done, labels = ingested(workspace, respelled(corpus({"ham": 30, "spam": 30}, twins=0), spam=["spam", "Spam"]))
    assert labels == {"Spam": 15, "ham": 30, "spam": 15}
    warning = "warning: labels that look alike are different classes: 'Spam' (15) and 'spam' (15)"
    assert warning in done.stderr and "ingest.label_map" in done.stderr
    done, labels = ingested(workspace, respelled(corpus({"ham": 30, "spam": 30}, twins=0)))
    assert "warning" not in done.stderr and "labels" not in done.stderr


def test_labels_that_are_the_same_number_are_classes_of_their_own_with_a_warning() -> None:
    written = pa.chunked_array([["0", "1", "0.0", "1.0", "1", "nan", "inf", "Infinity"]], pa.large_string())
    labels, notes = training_labels(written, None, str)
    assert labels.equals(written)
    alike = "'0' (1) and '0.0' (1), '1' (2) and '1.0' (1)"
    assert notes == [f"warning: labels that look alike are different classes: {alike}; to join them, use ingest.label_map"]
    joined = {"0": "a", "1": "b", "0.0": "a", "1.0": "b", "nan": "c", "inf": "d", "Infinity": "d"}
    assert training_labels(written, joined, str)[1] == []


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("name", ["nan", "NA", "None", "null", "NaN", "N/A", "-1"])
def test_names_that_other_readers_take_for_missing_are_labels(workspace: Project, ending: str, name: str) -> None:
    table = corpus({"ham": 30, name: 20}, twins=0)
    missing = "" if ending in ("csv", "tsv") else None
    rows = pd.DataFrame({"text": ["one more", "and one"], "label": [missing, " \u200b"]})
    done, labels = ingested(workspace, pd.concat([table, rows], ignore_index=True), f"a.{ending}")
    assert labels == {"ham": 30, name: 20}, done.stderr
    assert f"ingest: 2 rows without a label, the first is a.{ending}: row 51" in done.stderr
    assert read_json(workspace.folder / PROJECT.ingest)["dropped"]["missing_label"] == 2


def test_a_floating_point_nan_is_a_missing_label_or_text(workspace: Project) -> None:
    table = corpus({"0": 30, "1": 20}, twins=0)
    numbers = table["label"].astype(float).to_numpy().copy()
    numbers[:4] = np.nan
    done, labels = ingested(workspace, table.assign(label=numbers), "a.parquet", label_map={0: "ham", 1: "spam"})
    assert sum(labels.values()) == 46 and set(labels) == {"ham", "spam"}, done.stderr
    assert "4 rows without a label, the first is a.parquet: row 1" in done.stderr


def with_missing_labels(table: pd.DataFrame, ending: str) -> bytes:
    """A table of a column and labels as each format writes it: a label that is None is NaN, or an empty cell."""
    sink, first = io.BytesIO(), table.columns[0]
    labels = [np.nan if label is None else label for label in table["label"]]
    if ending == "parquet":
        # In a column of text, NaN is null.
        columns = pa.table({first: list(table[first]), "label": pa.array(labels, from_pandas=True)})
        parquet.write_table(columns, sink)
    elif ending in ("jsonl", "json"):
        rows = [{first: value, "label": label} for value, label in zip(table[first], labels, strict=True)]
        written = [json.dumps(row) for row in rows]
        sink.write(("\n".join(written) if ending == "jsonl" else f"[{', '.join(written)}]").encode())
    elif ending == "xlsx":
        table.assign(label=labels).to_excel(sink, index=False)
    else:
        table.assign(label=labels).to_csv(sink, index=False, sep="\t" if ending == "tsv" else ",")
    return sink.getvalue()


@pytest.mark.parametrize("ending", [*FORMATS, "json", "xlsx"])
@pytest.mark.parametrize("names", [("nan", "NaN"), ("NA", "None"), (0.5, 1.5)], ids=str)
def test_a_missing_label_is_no_class_beside_names_that_read_like_one(
    workspace: Project, ending: str, names: tuple[object, object]
) -> None:
    table = corpus({"first": 30, "second": 20}, twins=0)
    values = dict(zip(("first", "second"), names, strict=True))
    labels = [None if row in (3, 7) else values[label] for row, label in enumerate(table["label"])]
    workspace.write(f"a.{ending}", with_missing_labels(table.assign(label=pd.Series(labels, dtype=object)), ending))
    workspace.edit({"ingest.source": "file", "ingest.path": f"a.{ending}"})
    done = workspace.stage_here("ingest")
    assert done.code == 0, done.stderr
    summary = read_json(workspace.folder / PROJECT.ingest)
    expected = {str(name): labels.count(name) for name in names}
    assert (summary["labels"], summary["dropped"]["missing_label"]) == (expected, 2)
    assert f"ingest: 2 rows without a label, the first is a.{ending}: row 4" in done.stderr
    shown = workspace.stage_here("ingest", preview=True).stdout
    assert f"2 labels: {', '.join(f'{str(name)!r} {expected[str(name)]}' for name in names)}; without a label: 2" in shown


def test_feedback_that_joins_the_data_may_have_the_labels_of_the_file(workspace: Project) -> None:
    rows = [("f0", "entirely new words", "1"), ("f1", "some other words", "0"), ("f2", "and the third", "spam ")]
    table = pd.DataFrame([(*row, "train") for row in rows], columns=["id", "text", "label", "split"])
    workspace.write(str(PROJECT.feedback), table)
    numbers = corpus({"0": 30, "1": 20}, twins=0)
    done, labels = ingested(workspace, numbers, label_map={0: "ham", 1: "spam"})
    assert labels == {"ham": 31, "spam": 22}, done.stderr
    messages = pd.read_parquet(workspace.folder / PROJECT.messages).set_index("id")
    assert messages.loc[["f0", "f1", "f2"], "label"].tolist() == ["spam", "ham", "spam"]
    workspace.write(str(PROJECT.feedback), table.assign(label=["1", "0", "2"]))
    assert "data/feedback.parquet: row 3 has the label '2': known: ham, spam" in workspace.stage_here("ingest").error


@pytest.mark.parametrize("ending", [*FORMATS, "json", "xlsx"])
def test_labels_of_people_tell_a_missing_label_from_names_that_read_like_one(workspace: Project, ending: str) -> None:
    names: list[str | None] = ["nan", "NA", None, "None", "null", None, "nan"]
    table = pd.DataFrame({"id": [f"w-{row}" for row in range(len(names))], "label": pd.Series(names, dtype=object)})
    workspace.write(f"production/labels/a.{ending}", with_missing_labels(table, ending))
    with contextlib.chdir(workspace.folder):
        found = read_labels(["NA", "None", "nan", "null"])
    assert found.to_dict() == {"w-0": "nan", "w-1": "NA", "w-3": "None", "w-4": "null", "w-6": "nan"}


def test_a_label_map_names_values_as_the_file_does_or_as_yaml_does(workspace: Project) -> None:
    for value, other in ((True, False), ("True", "False"), ("true", "false")):
        table = respelled(corpus({"ham": 30, "spam": 20}, twins=0), ham=["False "], spam=["True"])
        assert ingested(workspace, table, label_map={value: "spam", other: "ham"})[1] == {"ham": 30, "spam": 20}
    table = corpus({"no": 30, "yes": 20, "off": 20}, twins=0)
    mapped = {"no": "fine", "yes": "fraud", "off": "no"}
    assert ingested(workspace, table, label_map=mapped)[1] == {"fine": 30, "fraud": 20, "no": 20}


@pytest.mark.parametrize(
    ("label_map", "words"),
    [
        ({"ham": "ham", "spam": "\u200b"}, "ingest.label_map: the label of 'spam' is blank"),
        ({"ham": "ham", "spam": "spam", "spam ": "eggs"}, "ingest.label_map: the value 'spam ' occurs twice"),
        ({"ham": "ham", "spa": "spam"}, "has the label 'spam', which ingest.label_map lacks: did you mean 'spa'?"),
    ],
)
def test_a_bad_label_map_is_named(workspace: Project, label_map: dict[str, str], words: str) -> None:
    done, _ = ingested(workspace, corpus({"ham": 30, "spam": 20}, twins=0), label_map=label_map)
    assert words in done.error


# Settings


def test_keys_of_settings_are_text_as_written() -> None:
    content = b"{True: 1, yes: 2, 01: 3, null: 4, 1.0: 5, 2026-01-31: 6, 'quoted': 7, 0x1F: 8, ~: 9}"
    assert list(yaml_value(content)) == ["True", "yes", "01", "null", "1.0", "2026-01-31", "quoted", "0x1F", "~"]
    assert yaml_value(b"a: &a {1: x}\nb: {<<: *a, 2: y}\nc: [1, true]") == {
        "a": {"1": "x"},
        "b": {"1": "x", "2": "y"},
        "c": [1, True],
    }
    with pytest.raises(UserError, match="duplicate key"):
        yaml_value(b"{1: a, '1': b}")


def write_settings(workspace: Project, **sections: str) -> None:
    """Replace keys of params.yaml, named as in production__prior, by YAML as a person types it."""
    workspace.edit({key.replace("__", "."): f"@{key}@" for key in sections})
    path = workspace.folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for key, value in sections.items():
        for quote in ("'", '"', ""):
            text = text.replace(f"{quote}@{key}@{quote}", value)
    path.write_text(text, encoding="utf-8")


LABELS = {
    "truth values as pandas writes them": ("False", "True"),
    "truth values as JSON writes them": ("false", "true"),
    "words": ("no", "yes"),
    "numbers": ("0", "1"),
    "numbers with a zero in front": ("01", "02"),
    "what YAML takes for nothing and for a date": ("null", "2026-01-31"),
}


@pytest.mark.parametrize(("common", "rare"), LABELS.values(), ids=LABELS)
def test_settings_name_labels_without_quotes(workspace: Project, common: str, rare: str) -> None:
    done, _ = ingested(workspace, corpus({common: 100, rare: 50}, twins=0))
    assert done.code == 0, done.stderr
    prior = f"{{{common}: 0.67, {rare}: 0.33}}"
    write_settings(
        workspace,
        production__prior=prior,
        validate__expected_prior=prior,
        operating_point__costs=f"{{{common}: {{{rare}: 10}}, {rare}: {{{common}: 1}}}}",
        techniques=f"{{tfidf: {{}}, class_weight: {{weights: {{{rare}: 10, {common}: 0.5}}}}}}",
        search__spaces="{}",
    )
    params = read_params(workspace.folder / PROJECT.params)
    assert expected_prior(params, [common, rare]) == {common: 0.67, rare: 0.33}
    done = workspace.stage_here("techniques")
    assert done.code == 0, done.stderr
    card = json.loads((workspace.folder / PROJECT.cards / "class_weight.json").read_bytes())
    assert card["parameters"] == {"weights": {rare: 10, common: 0.5}}


def test_settings_that_a_program_wrote_name_the_labels_of_pandas(workspace: Project) -> None:
    ingested(workspace, corpus({"False": 100, "True": 50}, twins=0))
    prior = {True: 0.33, False: 0.67}
    weights = {"technique": "class_weight", "weights": {True: 10, False: 1}}
    workspace.edit({"production.prior": prior, "validate.expected_prior": prior, "operating_point.label": True})
    workspace.edit({"operating_point.costs": {True: {False: 1}, False: {True: 2}}, "techniques": {"mine": weights}})
    for stage in ("validate", "techniques"):
        done = workspace.stage_here(stage)
        assert done.code == 0, done.stderr
    card = json.loads((workspace.folder / PROJECT.cards / "mine.json").read_bytes())
    assert card["parameters"] == {"weights": {"False": 1, "True": 10}}
    workspace.edit({"production.prior": {"yes": 0.33, False: 0.67}})
    assert "production.prior names the class 'yes': known: False, True" in workspace.stage_here("techniques").error


# Classes that are too small


def test_all_classes_that_are_too_small_are_named(workspace: Project) -> None:
    tail = {f"tail_{a}{b}": 1 + (a == "b") for a in "bdfgk" for b in "aeio"}
    table = corpus({"big_0": 60, "big_1": 60}, twins=0)
    rows = [(f"only here {label} {'abc'[at]} words", label) for label, count in tail.items() for at in range(count)]
    done, _ = ingested(workspace, pd.concat([table, pd.DataFrame(rows, columns=["text", "label"])], ignore_index=True))
    assert "20 classes have too few groups of near duplicates" in done.error
    for label, count in tail.items():
        assert f"'{label}' {count}" in done.error
    for advice in ("need at least 9 groups of each class", "ingest.fractions", "ingest.label_map"):
        assert advice in done.error
    few = pd.DataFrame([("one thing", "eggs")], columns=["text", "label"])
    done, _ = ingested(workspace, pd.concat([table, few], ignore_index=True))
    assert "class 'eggs' has 1 message in 1 group of near duplicates" in done.error


def test_of_very_many_small_classes_the_rest_is_counted() -> None:
    names = [f"a class with quite a long name {number:03d}" for number in range(300)]
    labels = np.concatenate([np.arange(300), np.zeros(9, dtype=int)])
    with pytest.raises(UserError) as failed:
        check_class_sizes(labels, np.arange(len(labels)), names, 9, "9 folds")
    message = str(failed.value)
    shown = message.count("a class with")
    assert 10 <= shown < 30 and f"and {299 - shown} more" in message and "left out" not in message


# Pages


@pytest.mark.parametrize(
    ("label", "words"), [("spam", "spam"), ("1", "class 1"), ("True", "class True"), ("-1.5", "class -1.5")]
)
def test_a_label_that_is_no_name_follows_the_word_class_in_sentences(label: str, words: str) -> None:
    costs = {"other": {label: 1.0, "other": 0.0}, label: {label: 0.0, "other": 1.0}}
    point = {"label": label, "rule": "recall", "limit": 0.9, "met": True, "costs": costs}
    rule = f"the highest {words} precision with a {words} recall of at least 0.9 on the held-out messages"
    assert operating_point_rule(point) == rule
    decision = f"a message is predicted as {words} if its probability of {words} exceeds 50%"
    assert decision_rule(point, ["other", label]).startswith(decision.rpartition(" ")[0])
    assert metric_name(f"{label}.pr_auc") == f"{words} PR AUC"


def test_labels_are_listed_as_people_look_for_them() -> None:
    labels = ["1", "10", "2", "False", "True", "nan", "topic 10", "topic 9", "-1"]
    listed = [labels[index] for index in natural_order(labels)]
    assert listed == ["-1", "1", "2", "10", "False", "nan", "topic 9", "topic 10", "True"]
