"""Splits by sender, by time and official splits, through the real stages."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.split_words import split_in_words
from tests.project import Project, corpus

ROWS = corpus({"ham": 160, "spam": 120}, twins=0.2)
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def official(table: pd.DataFrame = ROWS, *, validation: bool = True) -> pd.DataFrame:
    """The rows with an official split in the column `part`."""
    parts = np.resize([TRAIN, TRAIN, TRAIN, VALIDATION if validation else TRAIN, TEST], len(table))
    return table.assign(part=parts)


def ingested(workspace: Project, table: pd.DataFrame, **settings: Any) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """The messages, `data/ingest.json` and what ingest prints for a table that must be accepted."""
    workspace.write("messages.csv", table)
    workspace.edit({f"ingest.{key}": value for key, value in settings.items()})
    done = workspace.stage_here("ingest")
    assert done.code == 0, done.stderr
    return pd.read_parquet(workspace.folder / PROJECT.messages), read_json(workspace.folder / PROJECT.ingest), done.stderr


def refused(workspace: Project, table: pd.DataFrame, **settings: Any) -> str:
    """The error about a table or settings."""
    workspace.write("messages.csv", table)
    workspace.edit({f"ingest.{key}": value for key, value in settings.items()})
    done = workspace.stage_here("ingest")
    assert done.code == 1, done.stderr
    return done.error


def test_a_sender_is_on_one_side_only(workspace: Project) -> None:
    senders = [f"{label} sender {number % 60}" if number % 7 else None for number, label in enumerate(ROWS["label"])]
    table = ROWS.assign(sender=senders, id=np.arange(len(ROWS)))
    messages, summary, said = ingested(workspace, table, split="group_column", group_column="sender", id_column="id")
    of_id = dict(zip(table["id"].astype(str), senders, strict=True))
    sender = messages["id"].map(of_id)
    for names in (sender.dropna(), messages["group"], messages["unit"]):
        place = messages.loc[names.index, ["split", "fold"]].groupby(names)
        assert (place.nunique() == 1).all(axis=None)
    # Units are coarser than senders and groups, and messages without a sender are not one unit.
    assert messages.groupby("group")["unit"].nunique().max() == 1
    assert messages[sender.isna()]["unit"].nunique() > 10
    assert set(messages["split"]) == {TRAIN, TEST}
    assert summary["split"]["rule"] == "group_column"
    assert summary["split"]["units"] == messages["unit"].nunique()
    assert summary["split"]["crossing"]["rows"] == 0
    assert "Near duplicates and messages with the same sender stay together" in said
    assert f"the largest has {messages['unit'].value_counts().max()} message" in said
    done = workspace.stage_here("validate")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (lambda days: pd.to_datetime("2024-01-01") + pd.to_timedelta(days, unit="D"), "2024-08-12"),
        (lambda days: [f"2024-01-01T00:{day // 60:02d}:{day % 60:02d}+02:00" for day in days], "2024-01-01T00:0"),
        (lambda days: 1_700_000_000 + days, "1700000224"),
    ],
    ids=["dates", "times with an offset", "epoch seconds"],
)
def test_the_latest_messages_are_the_test_set(workspace: Project, write: Any, shown: str) -> None:
    days = np.random.default_rng(0).permutation(len(ROWS))
    table = ROWS.assign(sent=write(days), id=np.arange(len(ROWS)))
    messages, summary, said = ingested(
        workspace, table, split="time", time_column="sent", id_column="id", deduplicate=False, conflicts="drop"
    )
    day = messages["id"].astype(int).map(dict(enumerate(days)))
    assert day[messages["split"] == TRAIN].max() < day[messages["split"] == VALIDATION].min()
    assert day[messages["split"] == VALIDATION].max() < day[messages["split"] == TEST].min()
    assert (messages["split"] == TEST).sum() == round(0.2 * len(ROWS))
    assert (messages["fold"] == -1).all()
    crossing = summary["split"]["crossing"]
    later = messages["split"].map({TRAIN: 0, VALIDATION: 1, TEST: 2})
    assert crossing["rows"] == (later < later.groupby(messages["group"]).transform("max")).sum() > 0
    assert "a near duplicate in a later split" in said
    assert f"from {shown}" in said
    done = workspace.stage_here("validate")
    assert done.code == 0, done.stderr


BAD_TIMES = {
    "no time": ([None], "row 5 (line 6) has no time in the column 'sent' (ingest.time_column)"),
    "another order": (["31.01.2024"], "row 5 (line 6) has the time '31.01.2024'"),
    "no valid date": (["2024-02-30"], "row 5 (line 6) has the time '2024-02-30', which is no valid date"),
    "another kind": (
        ["2024-01-31T10:00:00Z"],
        "row 5 (line 6) has the time '2024-01-31T10:00:00Z', a date and time with an offset, but",
    ),
    "milliseconds": (["1706704496000"], "row 5 (line 6) has the time '1706704496000'"),
    "a date and hour without separators": (["2024013112"], "row 5 (line 6) has the time '2024013112'"),
    "a date without separators": (["20240131"], "row 5 (line 6) has the time '20240131'"),
}


@pytest.mark.parametrize(("value", "words"), BAD_TIMES.values(), ids=BAD_TIMES)
def test_a_wrong_time_names_its_row(workspace: Project, value: list[Any], words: str) -> None:
    times = [f"2024-01-{1 + row % 28:02d}" for row in range(len(ROWS))]
    times[4] = value[0]
    error = refused(workspace, ROWS.assign(sent=times), split="time", time_column="sent")
    assert words in error
    assert "2024-01-31T12:34:56Z" in error


def test_two_times_are_too_few(workspace: Project) -> None:
    times = [f"2024-01-0{1 + row % 2}" for row in range(len(ROWS))]
    error = refused(workspace, ROWS.assign(sent=times), split="time", time_column="sent")
    assert "the column 'sent' (ingest.time_column) has 2 different times" in error


def test_an_official_split_is_used_as_it_is(workspace: Project) -> None:
    table = official().assign(id=np.arange(len(ROWS)))
    messages, summary, said = ingested(workspace, table, split="column", split_column="part", id_column="id")
    parts = dict(zip(table["id"].astype(str), table["part"], strict=True))
    assert (messages["split"] == messages["id"].map(parts)).all()
    assert (messages["split"] == TEST).sum() == (table["part"] == TEST).sum()
    assert (messages["fold"] == -1).all()
    assert summary["folds"] == []
    assert "The test set is the official one (column part), 56 messages. Validation is official too." in said
    crossing = summary["split"]["crossing"]
    assert f"{crossing['rows']} messages of training or validation have a near duplicate in a later split" in said
    assert workspace.stage_here("validate").code == 0


def test_an_official_split_without_validation_has_folds(workspace: Project) -> None:
    messages, summary, _ = ingested(workspace, official(validation=False), split="column", split_column="part")
    assert len(summary["folds"]) == 8
    assert summary["split"]["crossing"]["rows"]
    train = messages[messages["split"] == TRAIN]
    assert set(train["fold"]) == set(range(8))
    assert train.groupby("group")["fold"].nunique().max() == 1
    assert workspace.stage_here("validate").code == 0
    expectations = {each["name"]: each["success"] for each in read_json(workspace.folder / PROJECT.validation)["expectations"]}
    # A near duplicate in the official test set is no leak between folds.
    assert expectations["no near duplicates in two folds"] and not expectations["no near duplicates in two splits"]


def test_crossing_messages_are_dropped_on_request(workspace: Project) -> None:
    settings = {"split": "column", "split_column": "part"}
    before, counted, _ = ingested(workspace, official(), **settings)
    after, summary, said = ingested(workspace, official(), **settings, drop_crossing=True)
    assert summary["dropped"]["crosses_splits"] == counted["split"]["crossing"]["rows"] == len(before) - len(after) > 0
    assert after.groupby("group")["split"].nunique().max() == 1
    pd.testing.assert_frame_equal(
        before[before["split"] == TEST].reset_index(drop=True), after[after["split"] == TEST].reset_index(drop=True)
    )
    assert "They are dropped (ingest.drop_crossing)" in said
    assert summary["split"]["crossing"] == {**counted["split"]["crossing"], "dropped": True}


def test_twins_of_unicode_that_cross_an_official_split_are_counted_and_dropped(workspace: Project) -> None:
    table = corpus({"ham": 60, "spam": 60}, twins=0)
    table["text"] = table["text"].str.replace("a", "\u00e9")
    table["part"] = np.resize([TRAIN, TEST], len(table))
    tested = table[table["part"] == TEST][:9]
    kinds = [lambda text: unicodedata.normalize("NFD", text), lambda text: f"{text[:2]}\u200b{text[2:]}", str.upper]
    twins = [kinds[at % 3](text) for at, text in enumerate(tested["text"])]
    table = pd.concat([table, tested.assign(text=twins, part=TRAIN)], ignore_index=True)
    messages, summary, said = ingested(workspace, table, split="column", split_column="part")
    assert summary["split"]["crossing"]["rows"] == 9 and len(messages) == len(table)
    assert "9 messages of training or validation have a near duplicate in a later split" in said
    messages, summary, _ = ingested(workspace, table, split="column", split_column="part", drop_crossing=True)
    assert summary["dropped"]["crosses_splits"] == 9
    assert set(twins).isdisjoint(messages["text"]) and set(tested["text"]) <= set(messages["text"])


def test_a_training_message_never_removes_a_test_message(workspace: Project) -> None:
    """An exact duplicate and a contradicting label in training leave the official test set alone."""
    table = official()
    tested = table[table["part"] == TEST]
    other = tested["label"].iloc[1:2].map({"ham": "spam", "spam": "ham"})
    repeats = pd.concat([tested.iloc[:1], tested.iloc[1:2].assign(label=other)]).assign(part=TRAIN)
    messages, summary, _ = ingested(workspace, pd.concat([repeats, table]), split="column", split_column="part")
    assert set(messages[messages["split"] == TEST]["text"]) == set(tested["text"])
    assert summary["dropped"]["duplicate"] == summary["dropped"]["conflict"] == 0
    repeated, _, _ = ingested(workspace, pd.concat([tested.iloc[:1], table]), split="column", split_column="part")
    assert (repeated["split"] == TEST).sum() == len(tested)


def test_other_names_of_splits(workspace: Project) -> None:
    table = official().replace({"part": {TRAIN: "0", VALIDATION: "1", TEST: "2"}})
    mapping = {0: TRAIN, 1: VALIDATION, 2: TEST}
    messages, _, _ = ingested(workspace, table, split="column", split_column="part", split_map=mapping)
    assert messages["split"].value_counts().to_dict() == official()["part"].value_counts().to_dict()
    error = refused(workspace, table, split_map=None)
    assert "row 1 (line 2) has the split '0' in the column 'part' (ingest.split_column)" in error
    assert "ingest.split_map renames values" in error
    error = refused(workspace, table.assign(part=[None, *table["part"][1:]]), split_map=mapping)
    assert "row 1 (line 2) has no split in the column 'part'" in error


def test_a_file_for_each_split(workspace: Project) -> None:
    table = official()
    for split, rows in table.groupby("part"):
        workspace.write(f"parts/{split}.tsv", rows[["text", "label"]])
    files = {TRAIN: "train.tsv", VALIDATION: "validation.tsv", TEST: "test.tsv"}
    messages, summary, said = ingested(workspace, table, path="parts", split="column", split_files=files)
    assert messages["split"].value_counts().to_dict() == table["part"].value_counts().to_dict()
    assert "file parts/train.tsv and file parts/validation.tsv" in summary["served_by"]
    assert "the official one (separate files)" in said
    (workspace.folder / "parts/test.tsv").unlink()
    assert "parts/test.tsv: no such file" in refused(workspace, table)


SETTINGS = {
    "no column for senders": ({"split": "group_column"}, "split: group_column needs group_column"),
    "no column for times": ({"split": "time"}, "split: time needs time_column"),
    "no official split": ({"split": "column"}, "split: column needs one of split_column, split_files"),
    "two official splits": (
        {"split": "column", "split_column": "part", "split_files": {"train": "a", "test": "b"}},
        "found split_column and split_files",
    ),
    "a column without its rule": ({"split_column": "part"}, "split_column is set, but split is grouped"),
    "folds of an official split": (
        {"split": "column", "split_column": "part", "folds": {"count": 5, "index": 0}},
        "folds is set, but split is column; the test split comes from the data",
    ),
    "nothing crosses groups": ({"drop_crossing": True}, "drop_crossing is set, but split is grouped"),
    "one column twice": ({"split": "time", "time_column": "text"}, "time_column and text_column are both 'text'"),
    "no such split": ({"split": "column", "split_column": "part", "split_map": {"dev": "val"}}, "split_map"),
}


@pytest.mark.parametrize(("settings", "words"), SETTINGS.values(), ids=SETTINGS)
def test_contradicting_settings(workspace: Project, settings: dict[str, Any], words: str) -> None:
    assert words in refused(workspace, official(), **settings)


def test_all_missing_classes_are_named(workspace: Project) -> None:
    table = official(corpus({"ham": 60, "spam": 60, "eggs": 20, "beans": 20}))
    table = table[~((table["part"] == TEST) & table["label"].isin(["eggs", "beans"]))]
    error = refused(workspace, table, split="column", split_column="part")
    assert "no message in the test split of beans, eggs" in error


def test_other_class_shares_of_test_are_a_warning(workspace: Project) -> None:
    """As in data sets with an enriched test set: shares, a test, and a production prior that is no mixture."""
    many = official(corpus({"ham": 600, "spam": 150}, twins=0))
    few_in_training = many[(many["part"] == TEST) | (many["label"] == "ham") | (np.arange(len(many)) % 7 == 0)]
    _, summary, said = ingested(workspace, few_in_training, split="column", split_column="part")
    split = summary["split"]
    assert split["differs"]
    assert split["shares_test"]["p"] < 0.001
    for name in (TRAIN, TEST):
        counts = summary["splits"][name]
        assert split["prior"][name]["spam"] == pytest.approx(counts["spam"] / sum(counts.values()))
    assert "Warning: the class shares of training and test differ (Fisher's exact test, p < 0.001)" in said
    _, same, silent = ingested(workspace, many)
    assert not same["split"]["differs"]
    assert "Warning" not in silent
    assert split_in_words(same)[-1] != split_in_words(summary)[-1]


def test_feedback_joins_a_fixed_split(workspace: Project) -> None:
    """Feedback takes the split of its near duplicates; of new messages, some validate and none has a fold."""
    table = official()
    known = table[table["part"] == VALIDATION].iloc[:1]
    new = corpus({"ham": 80, "spam": 80}, seed=9, twins=0)
    feedback = pd.concat([known.assign(text=known["text"] + " 1234"), new])
    feedback = feedback.assign(id=[f"f{row}" for row in range(len(feedback))], split=TRAIN)[["id", "text", "label", "split"]]
    workspace.write(str(PROJECT.feedback), feedback)
    messages, summary, _ = ingested(workspace, table, split="column", split_column="part")
    fed = messages[messages["source"] == "feedback"].set_index("id")
    assert fed.loc["f0", "split"] == VALIDATION
    assert (messages["fold"] == -1).all()
    assert fed["split"].value_counts()[TRAIN] > fed["split"].value_counts()[VALIDATION] > 5
    assert summary["feedback"] == len(fed)
    assert workspace.stage_here("validate").code == 0


def test_the_split_of_the_example_is_as_before(tmp_path: Path) -> None:
    """The table of a grouped split has no column for units."""
    from tests.project import workspace

    made = workspace(tmp_path)
    messages, summary, said = ingested(made, ROWS)
    assert list(messages) == ["id", "text", "label", "group", "split", "fold", "source"]
    assert summary["split"]["rule"] == "grouped"
    assert "The test set is a stratified random 20% of the messages. Near duplicates stay together." in said
