"""Scoring: what is scored and how, malformed rows, sources, a kill in between, a full disk, standard input, the flow."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from scipy.special import softmax

import ballast
from ballast.data.near_duplicates import near_duplicate_groups
from ballast.io.digest import parse_json
from ballast.models import folder as models
from stages.production import scoring
from stages.production.incoming import read_rows
from stages.production.rows import Columns, Row
from stages.production.score import answer
from stages.production.scoring import Seen
from stages.store.files import write_json
from stages.store.project import PROJECT
from stages.tables import lines
from stages.tables.rows import EXCERPT
from tests.deployed import deploy, prior_model, tfidf
from tests.flow_fixtures import eventually, prefect_server
from tests.project import ROOT, Outcome, Project, corpus

MESSAGES = corpus({"ham": 60, "spam": 30})
COLUMNS = Columns(text="text", id="id", settings={"text": "ingest.text_column", "id": "ingest.id_column"})


@pytest.fixture
def ready(workspace: Project) -> Project:
    """A workspace with a deployed linear model, where the column `id` holds the ids."""
    deploy(workspace.folder, tfidf(MESSAGES))
    workspace.edit({"production.score.id_column": "id", "production.score.quarantine": 1.0})
    return workspace


@pytest.fixture
def cheap(workspace: Project) -> Project:
    """The same with a model that costs nothing."""
    deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}))
    workspace.edit({"production.score.id_column": "id", "production.score.quarantine": 1.0})
    return workspace


def run(project: Project, source: str = "messages.csv", window: str = "w") -> Outcome:
    return project.stage_here("score", source=source, window=window)


def scored_file(project: Project, window: str = "w") -> Path:
    return project.folder / f"production/scored/{window}.parquet"


def scored(project: Project, window: str = "w") -> pd.DataFrame:
    return pd.read_parquet(scored_file(project, window))


def about(project: Project, window: str = "w") -> dict[str, Any]:
    return dict(json.loads(parquet.read_schema(scored_file(project, window)).metadata[b"ballast"]))


def quarantined(project: Project, window: str = "w") -> list[dict[str, Any]]:
    path = project.folder / f"production/quarantine/{window}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.exists() else []


def reasons(project: Project) -> dict[int, str]:
    return {row["row"]: row["reason"] for row in quarantined(project)}


def leftovers(project: Project) -> list[str]:
    return [str(path) for path in (project.folder / "production").rglob("*.partial")]


def jsonl(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def with_ids(messages: pd.DataFrame) -> pd.DataFrame:
    return messages.assign(id=[f"m{at}" for at in range(len(messages))])


def test_probabilities_are_on_the_production_prior_and_the_label_is_that_of_least_cost(workspace: Project) -> None:
    model = tfidf(MESSAGES)
    effective, production = {"ham": 0.6, "spam": 0.4}, {"ham": 0.9, "spam": 0.1}
    costs = {"ham": {"ham": 0.0, "spam": 1.0}, "spam": {"ham": 7.0, "spam": 0.0}}
    changes = {"effective_prior": effective, "production_prior": production, "operating_point": {"costs": costs}}
    folder = deploy(workspace.folder, model, "0007", **changes)
    workspace.edit({"production.score.id_column": "id"})
    messages = with_ids(pd.concat([MESSAGES, MESSAGES[:5]]))
    workspace.write("messages.csv", messages)
    done = run(workspace)
    assert done.code == 0, done.stderr
    assert "95 messages scored with version 0007" in done.stderr

    table = scored(workspace)
    assert list(table.columns) == ["id", "text", "group", "p_ham", "p_spam", "label", "model"]
    assert (list(table["id"]), list(table["text"])) == (list(messages["id"]), list(messages["text"]))
    ratio = np.log([0.9, 0.1]) - np.log([0.6, 0.4])
    expected = softmax(model.logits(list(messages["text"])).astype(np.float64) + ratio, axis=1)
    np.testing.assert_allclose(table[["p_ham", "p_spam"]], expected, rtol=1e-6)
    assert list(table["label"]) == ["spam" if spam * 7 > ham else "ham" for ham, spam in expected]
    assert set(table["label"]) == {"ham", "spam"}
    assert list(table["group"]) == list(near_duplicate_groups(pa.chunked_array([list(messages["text"])])))
    assert table["group"].dtype == np.int64
    assert set(table["model"]) == {"0007"}
    assert about(workspace) == {
        "window": "w",
        "source": "messages.csv",
        "rows": 95,
        "scored": 95,
        "quarantined": 0,
        "model": "0007",
        "sha256": about(workspace)["sha256"],
    }
    assert about(workspace)["sha256"] == incoming_sha256(folder / "manifest.json")
    assert quarantined(workspace) == leftovers(workspace) == []


def test_a_version_with_a_review_band_says_which_messages_people_decide(workspace: Project) -> None:
    model = tfidf(MESSAGES)
    costs = {"ham": {"ham": 0.0, "spam": 1.0}, "spam": {"ham": 2.0, "spam": 0.0}}
    band = {"kind": "cost", "limit": 0.1, "cut": 0.1, "share": None, "thresholds": {"low": 0.05, "high": 0.9}}
    deploy(workspace.folder, model, operating_point={"costs": costs, "review": band})
    workspace.edit({"production.score.id_column": "id"})
    workspace.write("messages.csv", with_ids(MESSAGES))
    assert run(workspace).code == 0
    table = scored(workspace)
    assert list(table.columns) == ["id", "text", "group", "p_ham", "p_spam", "label", "model", "review"]
    assert table["review"].dtype == bool and 0 < table["review"].sum() < len(table)
    np.testing.assert_array_equal(table["review"], table["p_spam"].between(0.05, 0.9, inclusive="neither"))
    loaded = ballast.load_deployed(workspace.folder / PROJECT.deployed)
    np.testing.assert_array_equal(loaded.review(table["text"]), table["review"])
    unclear = answer(str(table["text"][table["review"].argmax()]), 1000, loaded.model, loaded.version)
    assert unclear["review"] is True and set(unclear) == {"label", "probabilities", "review"}


def incoming_sha256(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_the_same_window_twice_is_the_same_file_and_another_replaces_it(ready: Project) -> None:
    ready.write("messages.csv", with_ids(MESSAGES))
    ready.write("more.csv", pd.concat([with_ids(MESSAGES), with_ids(MESSAGES)[:1]]))
    assert run(ready).code == 0
    first = scored_file(ready).read_bytes()
    assert run(ready).code == 0
    assert scored_file(ready).read_bytes() == first
    assert run(ready, "more.csv").code == 0
    assert (len(scored(ready)), len(quarantined(ready))) == (90, 1)
    assert run(ready).code == 0
    assert scored_file(ready).read_bytes() == first
    assert quarantined(ready) == []


def test_chunks_do_not_show(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = with_ids(pd.concat([MESSAGES] * 3, ignore_index=True))
    messages.loc[100, "id"] = "m3"
    ready.write("messages.csv", messages)
    assert run(ready).code == 0
    whole, rejected = scored(ready), quarantined(ready)
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 17)
    assert run(ready).code == 0
    pd.testing.assert_frame_equal(scored(ready), whole)
    assert quarantined(ready) == rejected
    monkeypatch.setattr(scoring, "CHUNK_CHARACTERS", 100)
    assert run(ready).code == 0
    pd.testing.assert_frame_equal(scored(ready), whole)
    assert [(each["row"], each["id"]) for each in rejected] == [(101, "m3")]


def test_repeated_texts_are_scored_once(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    kind = type(tfidf(MESSAGES))
    logits = kind.logits
    monkeypatch.setattr(kind, "logits", lambda self, texts: asked.append(len(texts)) or logits(self, texts))
    ready.write("messages.csv", with_ids(pd.concat([MESSAGES] * 4)))
    assert run(ready).code == 0
    assert asked == [len(set(MESSAGES["text"]))]
    assert len(scored(ready)) == 4 * len(MESSAGES)


def test_an_encoder_scores_too(workspace: Project, tiny_encoder: Path) -> None:
    import torch

    from ballast.models.encoder import new_encoder_model

    model = new_encoder_model(str(tiny_encoder), ["a", "b", "c"], 32, torch.device("cpu"), "fp32")
    deploy(workspace.folder, model)
    workspace.write("messages.jsonl", MESSAGES[["text"]])
    assert run(workspace, "messages.jsonl").code == 0
    table = scored(workspace)
    np.testing.assert_allclose(
        table[["p_a", "p_b", "p_c"]], softmax(model.logits(list(MESSAGES["text"])).astype(np.float64), axis=1), rtol=1e-5
    )
    assert list(table["id"]) == [f"w-{number}" for number in range(1, 91)]


CSV = (
    b"id,text,other\r\n"
    b"1,good one,x\r\n"
    b"2,,x\r\n"
    b"3,  \t,x\r\n"
    b"4,bad \xff byte,x\r\n"
    b"5,nul \0 here,x\r\n"
    b"6,too,many,x\r\n"
    b"7,few\r\n"
    b"8," + b"long" * 30 + b",x\r\n"
    b",no id,x\r\n"
    b"1,again,x\r\n"
    b'11,"never closed,x\r\n'
    b'12,"quoted, with ""quotes""\r\nand a line end",x\r\n'
    b'13,"quote" within,x\r\n'
    b"\r\n"
    b"14,bad byte elsewhere,\xfe\r\n"
    b"15,=HYPERLINK(1),<b>x</b>\r\n"
    b"16,\xf0\x9f\x98\x80 <script>,x\r\n"
    b'17,"open to the end,x\r\n'
    b"18,the last"
    b",x"
)


def test_malformed_csv_rows_cost_no_other_row(cheap: Project) -> None:
    cheap.edit({"production.score.longest_text": 100})
    cheap.write("messages.csv", CSV)
    done = run(cheap)
    assert done.code == 0, done.stderr
    assert list(scored(cheap)["id"]) == ["1", "11", "12", "13", "14", "15", "16", "17", "18"]
    assert list(scored(cheap)["text"][[1, 3, 7]]) == ['"never closed', '"quote" within', '"open to the end']
    assert scored(cheap)["text"][2] == 'quoted, with "quotes"\r\nand a line end'
    found = {
        (row["row"], row["id"]): (row["reason"], row["excerpt"])
        for row in quarantined(cheap)
        if row["source"] == "messages.csv"
    }
    assert found == {
        (2, "2"): ("the text is blank", ""),
        (3, "3"): ("the text is blank", "  \t"),
        (4, "4"): ("the text is not valid UTF-8", "bad \\udcff byte"),
        (5, "5"): ("the text has a NUL character", "nul \0 here"),
        (6, None): ("malformed csv: 4 fields, expected 3", "6,too,many,x\r\n"),
        (7, None): ("malformed csv: 2 fields, expected 3", "7,few\r\n"),
        (8, "8"): ("the text has 120 characters, more than 100 (production.score.longest_text)", "long" * 30),
        (9, ""): ("no id", "no id"),
        (10, "1"): ("an earlier row has the same id", "again"),
    }
    assert about(cheap) == about(cheap) | {"rows": 18, "scored": 9, "quarantined": 9}
    assert "9 rows in production/quarantine/w.jsonl" in done.stderr


def test_malformed_json_lines_cost_no_other_line(cheap: Project) -> None:
    rows = [
        {"id": 1, "text": "good", "other": 1},
        {"id": 2, "text": "good too", "other": {"now": ["nested"]}},
        b"{not json",
        b"[1, 2]",
        b"null",
        {"id": 6, "text": 7},
        {"id": 7, "text": None},
        {"id": 8},
        {"text": "no id"},
        {"id": None, "text": "null id"},
        {"id": ["x"], "text": "list id"},
        {"id": "12", "text": "lone \ud800 surrogate"},
        b'{"id": 13, "text": "bad \xff byte"}',
        b"",
        b"[" * 100_000,
        {"id": 15, "text": "\N{GRINNING FACE} \u2028 fine", "other": None},
        {"id": "2", "text": "number and text are one id"},
        b'{"id": 17, "text": "' + b"x" * 5_000_000 + b'"}',
        {"id": True, "text": "truth is no id"},
        {"id": "n\0", "text": "nul id"},
        {"id": 1.5, "text": "a number"},
    ]
    cheap.write("messages.jsonl", jsonl(*rows))
    done = run(cheap, "messages.jsonl")
    assert done.code == 0, done.stderr
    assert list(scored(cheap)["id"]) == ["1", "2", "6", "15", "true", "1.5"]
    assert scored(cheap)["text"][2] == "7"
    found = reasons(cheap)
    assert found.pop(3).startswith("invalid JSON: Expecting property name")
    assert found.pop(14).startswith("invalid JSON: maximum recursion depth")
    assert found == {
        4: "invalid JSON: not an object",
        5: "invalid JSON: not an object",
        7: "no text",
        8: "no text",
        9: "no id",
        10: "no id",
        11: "the column 'id' holds a list; expected text",
        12: "the text is not valid UTF-8",
        13: "the text is not valid UTF-8",
        16: "an earlier row has the same id",
        17: "the text has 5,000,000 characters, more than 100,000 (production.score.longest_text)",
        19: "the id has a NUL character",
    }
    assert all(len(row["excerpt"]) <= EXCERPT for row in quarantined(cheap))


def test_a_line_beyond_all_measure_is_not_kept(cheap: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    content = [b"id,text", b"1,a", b"2," + b"b" * 3000, b'3,"c', b"x" * 2500, b"4,d"]
    cheap.write("messages.csv", b"\n".join(content))
    assert run(cheap).code == 0
    assert list(scored(cheap)["id"]) == ["1", "3", "4"]
    assert reasons(cheap) == {2: lines.TOO_LONG, 4: lines.TOO_LONG}
    cheap.write("messages.jsonl", jsonl({"id": 1, "text": "a"}, {"id": 2, "text": "b" * 3000}, {"id": 3, "text": "c"}))
    assert run(cheap, "messages.jsonl").code == 0
    assert list(scored(cheap)["id"]) == ["1", "3"]


def test_parquet_columns_of_any_plain_type(cheap: Project) -> None:
    texts = pa.array(["a", None, "b", "c"]).dictionary_encode()
    parquet.write_table(pa.table({"id": [10, 11, 12, None], "text": texts}), cheap.folder / "a.parquet")
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())
    parquet.write_table(pa.table({"id": ["x", "y"], "text": broken}), cheap.folder / "b.parquet")
    parquet.write_table(pa.table({"id": ["x"], "text": [["nested"]]}), cheap.folder / "c.parquet")
    assert run(cheap, "a.parquet").code == 0
    assert list(scored(cheap)["id"]) == ["10", "12"]
    assert reasons(cheap) == {2: "no text", 4: "no id"}
    assert run(cheap, "b.parquet").code == 0
    assert list(scored(cheap)["id"]) == ["x"]
    assert reasons(cheap) == {2: "the text is not valid UTF-8"}
    assert "c.parquet: the column 'text' holds list" in run(cheap, "c.parquet").error


def test_too_many_malformed_rows_fail_after_writing_them_down(cheap: Project) -> None:
    cheap.write("messages.csv", b"id,text\n" + b"".join(b"%d,text\n" % number for number in range(19)) + b"19,\n")
    cheap.edit({"production.score.quarantine": 0.05})
    assert run(cheap).code == 0
    before = scored_file(cheap).read_bytes()
    cheap.write("messages.csv", b"id,text\n1,a\n2,\n3,\n")
    assert run(cheap).error == (
        "error: messages.csv: 2 of 3 rows are malformed, 66.7%, more than 5.0% (production.score.quarantine), so nothing was"
        " scored; they are in production/quarantine/w.jsonl, the first is messages.csv: row 2 (line 3): the text is blank"
    )
    assert list(reasons(cheap)) == [2, 3]
    assert scored_file(cheap).read_bytes() == before
    assert leftovers(cheap) == []


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.csv", None, "x.csv: no such file, and no folder with files in it"),
        ("x.csv", b"", "x.csv: no column 'text' (ingest.text_column): it is empty"),
        ("x.csv", b"id,txt\n1,a\n", "x.csv: no column 'text' (ingest.text_column): did you mean 'txt'? known: id, txt"),
        ("x.tsv", b"id\ttext\ttext\n", "x.tsv: more than one column 'text' (ingest.text_column)"),
        ("x.csv", b"text\na\n", "x.csv: no column 'id' (production.score.id_column): known: text"),
        ("x.csv", b"\xff\xfei\0d\0", "x.csv: no column 'text' (ingest.text_column): known: id"),
        ("x.csv", b"\xff,text\n1,\xc3\xa9\xc3\xa9\n", "x.csv: the first line must name the columns, but it is not UTF-8"),
        ("x.csv", b'id,"text\n', "x.csv: no column 'text' (ingest.text_column): did you mean "),
        ("x.jsonl", b'{"id": 1, "txt": "a"}\n', "x.jsonl: no column 'text' (ingest.text_column): did you mean 'txt'? "),
        ("x.parquet", b"no parquet", "x.parquet: cannot be read as parquet: "),
        ("x.xlsx", b"", "x.xlsx: cannot be read as xlsx: "),
        ("x.doc", b"", "x.doc: unknown format '.doc'; expected a name that ends in .csv, .tsv, "),
        ("folder/.hidden.csv", b"id,text\n", "folder: is a folder without files to read; expected"),
        ("folder/readme", b"", "folder/readme: unknown format ''; expected"),
        ("nosuch://x.csv", None, "nosuch://x.csv: cannot be read: Protocol not known: nosuch"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_scored_is_one_readable_line(
    cheap: Project, name: str, content: bytes | None, error: str
) -> None:
    if content is not None:
        cheap.write(name, content)
    assert f"error: {error}" in run(cheap, name.partition("/.")[0].partition("/readme")[0]).error
    assert not scored_file(cheap).exists()
    assert leftovers(cheap) == []


@pytest.mark.parametrize("window", [None, "", ".hidden", "a/b", "../x", "a b"])
def test_a_window_needs_a_name(cheap: Project, window: str | None) -> None:
    cheap.write("messages.csv", with_ids(MESSAGES))
    assert "expected a name such as 2026-01-31" in cheap.stage_here("score", source="messages.csv", window=window).error


@pytest.mark.parametrize(("name", "content"), [("x.csv", b"\xef\xbb\xbfid,text\n"), ("x.jsonl", b"\n"), ("x.jsonl", b"")])
def test_no_rows_are_a_window_of_none(cheap: Project, name: str, content: bytes) -> None:
    cheap.write(name, content)
    assert run(cheap, name).code == 0
    assert list(scored(cheap).columns) == ["id", "text", "group", "p_ham", "p_spam", "label", "model"]
    assert about(cheap)["rows"] == len(scored(cheap)) == 0


def test_a_folder_is_all_of_its_files(cheap: Project) -> None:
    cheap.write("in/b.csv", b"id,text\n1,one\n2,\n")
    cheap.write("in/a.jsonl", jsonl({"id": 3, "text": "three", "x": 1}))
    cheap.write("in/c/d.parquet", pd.DataFrame({"text": ["four"], "id": [4]}))
    cheap.write("in/_SUCCESS", b"")
    cheap.write("in/.crc/x", b"")
    cheap.write("in/e.tsv", b"id\ttext\n5\ta, \xc3\xa9\n1\tagain\n")
    assert run(cheap, "in/").code == 0
    assert list(scored(cheap)["id"]) == ["3", "1", "4", "5"]
    assert [(row["source"], row["row"]) for row in quarantined(cheap)] == [("in/b.csv", 2), ("in/e.tsv", 2)]
    cheap.edit({"production.score.id_column": None})
    assert run(cheap, "in").code == 0
    assert list(scored(cheap)["id"]) == [f"w-{number}" for number in (1, 2, 4, 5, 6)], "through all files"


def test_what_is_deployed_must_be_what_was_deployed(cheap: Project) -> None:
    cheap.write("messages.csv", with_ids(MESSAGES))
    current, version = cheap.folder / "production/deployed/current.json", cheap.folder / "production/deployed/0001"
    weights, manifest = version / "model/model.safetensors", version / "manifest.json"
    good = weights.read_bytes(), manifest.read_text(), current.read_text()
    weights.write_bytes(good[0][:-1] + b"\7")
    error = run(cheap).error
    sha256 = json.loads(good[1])["files"]["model/model.safetensors"]
    assert f"0001/model/model.safetensors: sha256 is {incoming_sha256(weights)}, " in error
    assert f"manifest.json says {sha256}" in error
    weights.unlink()
    assert "0001/model/model.safetensors: missing, but" in run(cheap).error
    weights.write_bytes(good[0])

    for change, words in (
        ({"labels": ["ham", "eggs"]}, "effective_prior names the class 'spam'"),
        ({"production_prior": {"ham": 1.0}}, "production_prior misses the class 'spam'"),
        ({"files": None}, "not the manifest of a deployed version"),
        (
            {"operating_point": {"costs": {"ham": {"spam": 1}, "spam": {"ham": 1}}, "review": {"kind": "margin"}}},
            "review.kind is 'margin'; expected 'budget' or 'cost'",
        ),
        ({"operating_point": {"costs": {}}}, "misses the cost of predicting 'spam' for 'ham'"),
    ):
        manifest.write_text(json.dumps(parse_json(good[1]) | change))
        assert "0001/manifest.json: its sha256 is" in run(cheap).error
        write_json(manifest, parse_json(good[1]) | change)
        [entry] = parse_json(good[2])["history"]
        write_json(current, {"version": "0001", "history": [entry | {"sha256": incoming_sha256(manifest)}]})
        assert words in run(cheap).error
    manifest.write_text(good[1])
    write_json(current, {"version": "0009", "history": []})
    assert "current.json: the version is '0009'; expected the name of a folder in production/deployed" in run(cheap).error
    current.unlink()
    assert "current.json: no such file, so no model is deployed" in run(cheap).error
    current.write_text(good[2])
    assert run(cheap).code == 0


def test_killed_in_between_the_next_run_loses_nothing_and_leaves_nothing(
    cheap: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap.write("messages.csv", with_ids(pd.concat([MESSAGES] * 20)))
    assert run(cheap).code == 0
    before = scored_file(cheap).read_bytes()
    scored_file(cheap).write_bytes(b"of an earlier run")
    slow = (
        "import time; from stages.production import score, scoring; scoring.CHUNK_ROWS = 100; table = scoring.scored_table\n"
        "def slowly(*a): print('chunk', flush=True); time.sleep(0.2); return table(*a)\n"
        "scoring.scored_table = slowly; score.main('messages.csv', 'w')"
    )
    env = cheap.environment | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", slow], cwd=cheap.folder, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(3)] == ["chunk\n"] * 3
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert len(leftovers(cheap)) == 2
    assert scored_file(cheap).read_bytes() == b"of an earlier run"
    assert run(cheap).code == 0
    assert leftovers(cheap) == []
    assert scored_file(cheap).read_bytes() == before


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of a size in memory at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("full", ["scored", "quarantine"])
def test_a_full_disk_is_one_readable_line_and_leaves_the_earlier_file(cheap: Project, full: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.bytes(300).hex() for _ in range(2000)]
    with small_disk(cheap.folder / "production" / full, "256k"):
        cheap.write("messages.csv", with_ids(MESSAGES))
        assert run(cheap).code == 0
        before = scored_file(cheap).read_bytes()
        rows = {"scored": {"text": noise}, "quarantine": {"text": [""] * 2000}}[full]
        cheap.write("more.csv", pd.DataFrame(rows | {"id": noise}))
        assert (
            "not written, because the disk is full; an earlier file of this name is unchanged" in run(cheap, "more.csv").error
        )
        assert scored_file(cheap).read_bytes() == before
        assert leftovers(cheap) == []


def test_standard_input_is_answered_line_by_line(ready: Project) -> None:
    env = ready.environment | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.score", "-"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ready.folder, env=env, **pipes) as child:

        def answer(line: bytes) -> dict[str, Any]:
            child.stdin.write(line)
            child.stdin.flush()
            return dict(json.loads(child.stdout.readline()))

        text = MESSAGES["text"][0]
        first = answer(text.encode() + b"\n")
        expected = softmax(models.load(ready.folder / "production/deployed/0001/model").logits([text])[0].astype(np.float64))
        assert list(first["probabilities"]) == ["ham", "spam"]
        np.testing.assert_allclose(list(first["probabilities"].values()), expected, rtol=1e-6)
        assert first["label"] == ["ham", "spam"][int(expected.argmax())]
        assert answer(b"\n") == {"error": "the text is blank"}
        assert answer(b"a \xff\n") == {"error": "the text is not valid UTF-8"}
        assert answer(b"a \0\r\n") == {"error": "the text has a NUL character"}
        assert "more than 100,000" in answer(b"x" * 200_000 + b"\n")["error"]
        assert answer(text.encode() + b"\r\n") == first
        out, err = child.communicate(text.encode())  # the last line may lack its end
    assert (child.returncode, err) == (0, b"")
    assert json.loads(out) == first
    assert not (ready.folder / "production/scored").exists()


def test_standard_input_has_no_window(cheap: Project) -> None:
    assert "--window names a window's file" in run(cheap, "-").error


POISON = [
    {"text": "  "}, {"text": None}, {"text": [3]}, {"text": "nul \0"}, {"text": "lone \udc80"}, {"text": "x" * 501},
    {"id": None},
]  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9), st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.integers(0, 20)),
        max_size=60,
    ),
    size=st.integers(1, 20),
)
def test_every_row_is_scored_once_or_quarantined_with_a_reason(
    cheap: Project, rows: list[tuple[int, str, int]], size: int
) -> None:
    cheap.edit({"production.score.longest_text": 500})
    made = [{"id": id_, "text": f"a{text}"} | dict(enumerate(POISON)).get(poison, {}) for id_, text, poison in rows]
    cheap.write("messages.jsonl", jsonl(*made))
    good: dict[str, str] = {}
    for row, (_, text, poison) in zip(made, rows, strict=True):
        if poison >= len(POISON) and "\0" not in text:
            good.setdefault(str(row["id"]), str(row["text"]))
    before, scoring.CHUNK_ROWS = scoring.CHUNK_ROWS, size
    try:
        assert run(cheap, "messages.jsonl").code == 0
    finally:
        scoring.CHUNK_ROWS = before
    table, rejected = scored(cheap), quarantined(cheap)
    assert dict(zip(table["id"], table["text"], strict=True)) == good
    assert table["id"].is_unique
    assert len(table) + len(rejected) == len(made) == about(cheap)["rows"]
    assert len({row["row"] for row in rejected}) == len(rejected)
    assert all(row["reason"] for row in rejected)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80) | st.text('a,"\n\r\t\0 é1', max_size=60).map(str.encode),
    ending=st.sampled_from(["csv", "jsonl"]),
)
def test_no_bytes_stop_the_reading(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    head, tail = {
        "csv": (b"id,text\n", b"\nlast,good\n"),
        "jsonl": (b'{"id": "first", "text": "good"}\n', b'\n{"id": "last", "text": "good"}\n'),
    }[ending]
    path.write_bytes(head + content + tail)
    rows = list(read_rows(str(path), COLUMNS))
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    if b'"' not in content or ending == "jsonl":
        assert rows[-1]._replace(line=None) == Row(str(path), len(rows), "last", "good")


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=6))
def test_seen_ids_are_those_that_came_before(chunks: list[list[str]]) -> None:
    seen, known = Seen(), set[str]()
    for chunk in chunks:
        expected = []
        for each in chunk:
            expected.append(each in known)
            known.add(each)
        assert list(seen.repeated(chunk)) == expected
    lengths = [len(run) for run in seen.runs]
    assert sum(lengths) == len(known) and all(left > 2 * right for left, right in pairwise(lengths))


def test_a_bucket_is_a_folder_too(cheap: Project) -> None:
    from moto.server import ThreadedMotoServer

    with ExitStack() as stack:
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        stack.callback(server.stop)
        host, port = server.get_host_and_port()
        env = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        put = (
            "import fsspec; fs = fsspec.filesystem('s3'); fs.mkdir('bucket')\n"
            "fs.pipe('bucket/in/a.csv', b'id,text\\n1,one\\n2,\\n')\n"
            'fs.pipe(\'bucket/in/b.jsonl\', b\'{"id": 3, "text": "three"}\')\n'
            "from stages.production.score import main; main('s3://bucket/in', 'w')\n"
            "try: main('s3://bucket/nothing', 'x')\n"
            "except Exception as error: print(error)"
        )
        done = cheap.run(sys.executable, "-c", put, **env)
        assert done.code == 0, done.stderr
        assert list(scored(cheap)["id"]) == ["1", "3"]
        assert [row["source"] for row in quarantined(cheap)] == ["s3://bucket/in/a.csv"]
        assert done.stdout == "s3://bucket/nothing: no such file, and no folder with files in it\n"


@pytest.mark.slow
def test_the_flow_scores_the_window_of_its_time(
    cheap: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.failures import StageFailed
    from flows.score import score as score_flow

    today = f"{datetime.now(UTC) - timedelta(hours=24):%Y}"
    cheap.edit({"production.score.window": "%Y"})
    cheap.write(f"production/incoming/{today}/a.csv", with_ids(MESSAGES)[:7])
    with prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        flow = [sys.executable, "-m", "flows.score"]
        done = cheap.run(*flow, **server.environment)
        assert done.code == 0, done.stderr
        assert len(scored(cheap, today)) == 7
        assert about(cheap, today)["source"] == f"production/incoming/{today}"
        run_ = server.last_run()
        assert (run_["name"], run_["state_type"]) == (f"score: {today}", "COMPLETED")
        told = f"score: {today}: 7 messages scored with version 0001"
        assert eventually(lambda: told in [each["message"] for each in server.of_last_run("logs")])

        monkeypatch.chdir(cheap.folder)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        with (
            temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.home}),
            pytest.raises(StageFailed, match=r"score failed with exit code 1: missing\.csv: no such file, and no folder"),
        ):
            score_flow("missing.csv", "given")
        assert server.last_run()["state_type"] == "FAILED"
