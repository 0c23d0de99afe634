"""Corrected labels: from a list of suspects through a spreadsheet and back into the data, without a change of the splits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.relabelled import cell, write_suspects
from tests.project import Project, corpus

TABLE = corpus({"ham": 80, "spam": 60}, twins=0)
OTHER = {"ham": "spam", "spam": "ham"}
EDITED = "edited.csv"


def messages(workspace: Project) -> pd.DataFrame:
    return pd.read_parquet(workspace.folder / PROJECT.messages).set_index("id")


@pytest.fixture
def ingested(workspace: Project) -> Project:
    # A repeated text: its rows keep one label.
    table = pd.concat([TABLE, TABLE.iloc[[0]]], ignore_index=True)
    workspace.write("messages.csv", table)
    workspace.edit({"ingest.source": "file", "ingest.path": "messages.csv"})
    assert workspace.stage_here("ingest").code == 0
    return workspace


def relabel(project: Project, rows: dict[str, str], name: str = EDITED) -> str:
    """Give back labels by id; the standard error."""
    table = pd.DataFrame({"id": list(rows), "label": list(rows.values()), "quality": 0.1})
    project.write(name, table.to_csv(index=False).encode())
    done = project.stage_here("production.relabel", path=Path(name))
    assert done.code == 0, done.stderr
    assert project.stage_here("ingest").code == 0
    return done.stderr


@pytest.mark.parametrize("settings", [{}, {"ingest.folds": {"count": 3, "index": 0}}, {"ingest.deduplicate": False}])
def test_corrected_labels_change_nothing_but_the_labels(ingested: Project, settings: dict[str, object]) -> None:
    ingested.edit(settings)
    assert ingested.stage_here("ingest").code == 0
    before = messages(ingested)
    wrong = before[before["split"] == "train"].index[:3].tolist()
    rows = {name: OTHER[before.loc[name, "label"]] for name in wrong}
    unchanged = before.index[10]
    said = relabel(ingested, rows | {unchanged: before.loc[unchanged, "label"]})
    assert "3 of 4 labels differ" in said
    after = messages(ingested)
    pd.testing.assert_frame_equal(after.drop(columns="label"), before.drop(columns="label"))
    texts = set(before.loc[wrong, "text"])
    changed = (after["label"] != before["label"]) & before["text"].isin(texts)
    assert (changed == (after["label"] != before["label"])).all() and set(before[changed]["text"]) == texts
    summary = read_json(ingested.folder / PROJECT.ingest)
    assert summary["relabelled"] == changed.sum() and summary["feedback"] == 0
    assert summary["dropped"]["conflict"] == 0


def test_a_correction_can_be_taken_back(ingested: Project) -> None:
    before = messages(ingested)
    name = before.index[0]
    relabel(ingested, {name: OTHER[before.loc[name, "label"]]})
    assert messages(ingested).loc[name, "label"] != before.loc[name, "label"]
    relabel(ingested, {name: before.loc[name, "label"]})
    pd.testing.assert_frame_equal(messages(ingested), before)
    assert len(pd.read_parquet(ingested.folder / PROJECT.feedback)) == 1


def test_feedback_with_another_text_than_the_id_is_no_correction(ingested: Project) -> None:
    before = messages(ingested)
    table = pd.DataFrame({"id": [before.index[0]], "text": ["entirely new words"], "label": ["spam"], "split": ["train"]})
    ingested.write(str(PROJECT.feedback), table)
    assert ingested.stage_here("ingest").code == 0
    summary = read_json(ingested.folder / PROJECT.ingest)
    assert summary["relabelled"] == 0 and summary["feedback"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,label\n9999,ham\n", ["row 1", "no message", "'9999'"]),
        (b"id,label\n1,hma\n", ["row 1", "'hma'", "'ham'"]),
        (b"id,text\n1,ham\n", ["no column 'label'"]),
        (b"id,label\n1,\xff\n", ["row 1 (line 2)", "the label '\u00ff'", "known: ham, spam"]),
        (b"id,label,note\n1,ham,\xc3\xa9\n2,\xff,\n", ["row 2 (line 3)", "'label' is not valid UTF-8"]),
    ],
)
def test_a_wrong_file_is_named_and_changes_nothing(ingested: Project, content: bytes, words: list[str]) -> None:
    before = (ingested.folder / PROJECT.feedback).read_bytes()
    ingested.write(EDITED, content)
    error = ingested.stage_here("production.relabel", path=Path(EDITED)).error
    assert all(word in error for word in [EDITED, *words]), error
    assert (ingested.folder / PROJECT.feedback).read_bytes() == before
    assert "nowhere.csv" in ingested.stage_here("production.relabel", path=Path("nowhere.csv")).error


@pytest.mark.parametrize(
    ("written", "dialect"),
    [
        ("id;label\n{id};{label}\n", "csv, UTF-8, delimiter ';', quote '\"', header"),
        ("id\tnote\tlabel\n{id}\tca\u00e7a\t{label}\n", "csv, Windows-1252 (Latin-1), delimiter '\\t', quote '\"', header"),
    ],
    ids=["semicolons", "tabs in Latin-1"],
)
def test_what_a_spreadsheet_writes_is_read_and_how_is_stated(ingested: Project, written: str, dialect: str) -> None:
    before = messages(ingested)
    name = before.index[0]
    label = OTHER[before.loc[name, "label"]]
    ingested.write(EDITED, written.format(id=name, label=label).encode("cp1252"))
    done = ingested.stage_here("production.relabel", path=Path(EDITED))
    assert done.code == 0 and "1 of 1 labels differ" in done.stderr
    assert f"relabel: {EDITED}: {dialect}\n" in done.stderr
    assert ingested.stage_here("ingest").code == 0
    assert messages(ingested).loc[name, "label"] == label


def test_a_correction_may_have_the_labels_of_the_file(workspace: Project) -> None:
    workspace.write("messages.csv", TABLE.assign(label=TABLE["label"].map({"ham": 0, "spam": 1})))
    workspace.edit({"ingest.source": "file", "ingest.path": "messages.csv", "ingest.label_map": {0: "ham", 1: "spam"}})
    assert workspace.stage_here("ingest").code == 0
    ham, spam = (messages(workspace).query(f"label == '{label}'").index[0] for label in ("ham", "spam"))
    assert "1 of 2 labels differ" in relabel(workspace, {ham: "1", spam: "1.0"})
    assert messages(workspace).loc[[ham, spam], "label"].tolist() == ["spam", "spam"]
    workspace.write(EDITED, b"id,label\n1,2\n")
    error = workspace.stage_here("production.relabel", path=Path(EDITED)).error
    assert "edited.csv: row 1 (line 2) has the label '2': known: 0, 1, ham, spam" in error


def test_no_cell_is_a_formula_and_none_hides_characters(tmp_path: Path) -> None:
    hostile = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum(1)", "\t=1", "\r=1", "'=1", "a\u202eb", 'quote " and, comma\nline']
    rows = [{"id": text, "text": text, "label": "ham", "suggested": "spam", "quality": 0.1} for text in hostile]
    write_suspects(tmp_path / "relabel.csv", rows)
    found = pd.read_csv(tmp_path / "relabel.csv", dtype=str, keep_default_na=False)
    assert found.columns.tolist() == ["id", "text", "label", "suggested", "quality"] and len(found) == len(hostile)
    assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in found["text"])
    assert "\u202e" not in "".join(found["text"])
    assert cell("plain") == "plain" and cell(hostile[-1]) == hostile[-1]


def test_ids_that_look_like_formulas_come_back(workspace: Project) -> None:
    table = TABLE.assign(key=[f"-{number}" for number in range(len(TABLE))])
    workspace.write("messages.csv", table)
    workspace.edit({"ingest.source": "file", "ingest.path": "messages.csv", "ingest.id_column": "key"})
    assert workspace.stage_here("ingest").code == 0
    before = messages(workspace)
    for written in (cell("-0"), "-1"):
        plain = written.removeprefix("'")
        relabel(workspace, {written: OTHER[before.loc[plain, "label"]]})
        assert messages(workspace).loc[plain, "label"] != before.loc[plain, "label"]
