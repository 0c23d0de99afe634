"""Values of messages in training and in production: texts in which nothing is visible, twins of Unicode, ids."""

from __future__ import annotations

import io
import json
import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ballast.data.blank_text import blank_rows, is_blank
from ballast.data.near_duplicates import near_duplicate_groups
from stages.production.incoming import read_rows
from stages.production.malformed import malformed_id, malformed_text
from stages.production.rows import Columns
from stages.store.files import read_json
from stages.store.ids import malformed_spelling
from stages.store.project import PROJECT
from stages.tables.detect import Expected
from stages.tables.training import read_training
from tests.deployed import deploy, prior_model
from tests.project import Project, corpus
from tests.test_labels import ingested

FORMATS = ("csv", "tsv", "jsonl", "parquet")
INVISIBLE = {
    "white space": " \t\u00a0\u3000\u2003",
    "a zero-width space": "\u200b",
    "a word joiner": "\u2060",
    "a mark of order": "\ufeff",
    "marks of direction": "\u200e\u200f\u202d\u202c",
    "a soft hyphen": "\u00ad",
    "a filler of Hangul": "\u3164",
    "a braille pattern without dots": "\u2800",
    "a selector of variants": "\ufe0f",
    "control characters": "\x01\x7f\x9f",
    "a paragraph separator": "\u2029",
}
VISIBLE = {
    "a stop": "\u200b.",
    "a combining accent": "\u0301",
    "an emoji": "\u2764\ufe0f",
    "a private character": "\ue000",
    "zero": "0",
}


# Texts in which nothing is visible


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_an_invisible_text_is_blank(text: str) -> None:
    assert is_blank(text) and malformed_text(text, 100) == "the text is blank"
    assert blank_rows(pa.array([text, "a"])).tolist() == [True, False]


@pytest.mark.parametrize("text", VISIBLE.values(), ids=VISIBLE)
def test_a_visible_text_is_not_blank(text: str) -> None:
    assert not is_blank(text) and malformed_text(text, 100) is None
    assert blank_rows(pa.array([text])).tolist() == [False]


def test_a_column_and_a_text_agree_on_every_character() -> None:
    # The planes between hold letters of Chinese and nothing else, or nothing.
    codes = [*range(1, 0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200)]
    characters = list(map(chr, codes))
    blank = blank_rows(pa.chunked_array([characters]))
    assert blank.tolist() == [is_blank(character) for character in characters]
    assert 200 < blank.sum() < 1000


@given(st.lists(st.none() | st.text(alphabet=" \u200b\u3164a.", max_size=4)))
def test_a_column_and_its_texts_agree(texts: list[str | None]) -> None:
    column = pa.chunked_array([pa.array(texts[:2], pa.large_string()), pa.array(texts[2:], pa.large_string())])
    assert blank_rows(column).tolist() == [text is None or is_blank(text) for text in texts]


@pytest.mark.parametrize("ending", FORMATS)
def test_invisible_texts_are_dropped_and_counted(workspace: Project, ending: str) -> None:
    texts = [text for name, text in INVISIBLE.items() if name not in ("control characters", "a paragraph separator")]
    rows = pd.DataFrame({"text": texts, "label": "ham"})
    table = corpus({"ham": 30, "spam": 20}, twins=0)
    marked = table.assign(text=table["text"] + "\u200b")
    done, labels = ingested(workspace, pd.concat([marked, rows], ignore_index=True), f"a.{ending}")
    assert labels == {"ham": 30, "spam": 20}, done.stderr
    assert read_json(workspace.folder / PROJECT.ingest)["dropped"]["blank_text"] == len(texts)
    # A mark at the end of a text is part of its bytes.
    assert pd.read_parquet(workspace.folder / PROJECT.messages)["text"].str.endswith("\u200b").all()


@pytest.mark.parametrize("ending", FORMATS)
def test_invisible_texts_go_to_quarantine_in_production(workspace: Project, ending: str) -> None:
    deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}))
    workspace.edit({"production.score.quarantine": 1.0})
    texts = [text for name, text in INVISIBLE.items() if name not in ("control characters", "a paragraph separator")]
    table = corpus({"ham": 5, "spam": 5}, twins=0)[["text"]] + "\u200b"
    workspace.write(f"w.{ending}", pd.concat([table, pd.DataFrame({"text": texts})], ignore_index=True))
    done = workspace.stage_here("score", source=f"w.{ending}", window="w")
    assert done.code == 0, done.stderr
    lines = (workspace.folder / "production/quarantine/w.jsonl").read_text(encoding="utf-8").splitlines()
    rejected = [json.loads(line) for line in lines]
    assert [(row["row"], row["reason"]) for row in rejected] == [(11 + at, "the text is blank") for at in range(len(texts))]
    assert pd.read_parquet(workspace.folder / "production/scored/w.parquet")["text"].tolist() == table["text"].tolist()


# Twins


def twins(text: str) -> dict[str, str]:
    """Other ways to write a text that look the same, or the same but for case and width."""
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)
    return {
        "decomposed": unicodedata.normalize("NFD", text),
        "with a zero-width space": f"{text[:2]}\u200b{text[2:]}",
        "with a soft hyphen": f"{text[:3]}\u00ad{text[3:]}",
        "with a mark of order": f"\ufeff{text}",
        "wide": wide,
        "in capitals": text.upper(),
        "with no-break spaces": text.replace(" ", "\u00a0"),
    }


@pytest.mark.parametrize("name", twins("ab"))
def test_twins_are_near_duplicates(name: str) -> None:
    for text in ("döner für die gäste", "call the café now", "crème brûlée", "Ελληνικά σε όλους"):
        groups = near_duplicate_groups(pa.chunked_array([[text, twins(text)[name], text + " too"]]))
        assert groups[0] == groups[1] != groups[2], text


def test_twins_stay_in_one_split(workspace: Project) -> None:
    table = corpus({"ham": 60, "spam": 40}, twins=0)
    table["text"] = table["text"].str.replace("a", "ä").str.replace(r" \d+$", "", regex=True)
    table = table.drop_duplicates("text", ignore_index=True)
    kinds = list(twins("ab"))
    others = [twins(text)[kinds[at % len(kinds)]] for at, text in enumerate(table["text"])]
    both = pd.concat([table, table.assign(text=others)]).sample(frac=1, random_state=0, ignore_index=True)
    done, _ = ingested(workspace, both)
    assert done.code == 0, done.stderr
    messages = pd.read_parquet(workspace.folder / PROJECT.messages).set_index("text")
    assert messages["split"].nunique() == 2
    for text, twin in zip(table["text"], others, strict=True):
        assert messages.loc[text, ["split", "fold"]].tolist() == messages.loc[twin, ["split", "fold"]].tolist()


# Ids


LONG_IDS = {"53 bits": (2**53 + 1, 1), "63 bits": (2**63 + 5, 4099), "64 bits": (2**64 - 60, 1), "100 bits": (10**30, 7)}


def with_numbers(table: pd.DataFrame, ids: list[int], ending: str) -> bytes:
    """The table with ids as numbers where the format has exact ones, and as text in a spreadsheet."""
    rows = [{"id": id_, **row} for id_, row in zip(ids, table.to_dict("records"), strict=True)]
    if ending == "json":
        return json.dumps(rows).encode()
    if ending == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    sink = io.BytesIO()
    if ending == "parquet":
        kind = pa.uint64() if max(ids) < 2**64 else pa.decimal128(38, 0)
        columns = {name: list(table[name]) for name in table}
        parquet.write_table(
            pa.table({"id": pa.array(list(map(Decimal, ids)) if kind != pa.uint64() else ids, kind), **columns}), sink
        )
    elif ending == "xlsx":
        table.assign(id=list(map(str, ids))).to_excel(sink, index=False)
    else:
        table.assign(id=list(map(str, ids))).to_csv(sink, index=False, sep="\t" if ending == "tsv" else ",")
    return sink.getvalue()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
@pytest.mark.parametrize("size", LONG_IDS)
def test_long_ids_keep_their_digits_in_training_and_in_production(tmp_path: Path, ending: str, size: str) -> None:
    table = corpus({"ham": 30, "spam": 20}, twins=0)
    first, step = LONG_IDS[size]
    ids = [first + step * row for row in range(len(table))]
    path = tmp_path / f"a.{ending}"
    path.write_bytes(with_numbers(table, ids, ending))
    wanted = {"id": "ingest.id_column", "text": "ingest.text_column"}
    assert read_training(str(path), Expected(wanted=wanted)).table["id"].to_pylist() == list(map(str, ids))
    scored = read_rows(str(path), Columns(text="text", id="id", settings=wanted))
    assert [(row.id, row.reason) for row in scored] == [(str(id_), None) for id_ in ids]


def test_ids_beyond_64_bits_reach_the_messages_digit_for_digit(workspace: Project) -> None:
    table = corpus({"ham": 30, "spam": 20}, twins=0)
    for first, step in LONG_IDS.values():
        ids = [first + step * row for row in range(len(table))]
        workspace.write("a.jsonl", with_numbers(table, ids, "jsonl"))
        workspace.edit({"ingest.source": "file", "ingest.path": "a.jsonl", "ingest.id_column": "id"})
        done = workspace.stage_here("ingest")
        assert done.code == 0, done.stderr
        assert pd.read_parquet(workspace.folder / PROJECT.messages)["id"].tolist() == list(map(str, ids))


@pytest.mark.parametrize("value", ["9.22E+18", "9.223372036854776e+18", "-1.5e30", "1.23457E+11"])
def test_an_id_that_lost_its_digits_is_refused_in_training_and_in_production(workspace: Project, value: str) -> None:
    assert malformed_id(value, 100) == f"the id is {value}, a number that lost its digits; write ids as text"
    table = corpus({"ham": 30, "spam": 20}, twins=0)
    ids = [f"m{row}" for row in range(len(table))]
    done, _ = ingested(workspace, table.assign(id=[*ids[:6], value, *ids[7:]]), id_column="id")
    assert f"a.csv: row 7 (line 8) has no id in the column 'id' (ingest.id_column): the id is {value}" in done.error


@pytest.mark.parametrize("value", ["12e45", "1.5", "3.14e2", "9223372036854775813", "0x1e+10", "e.g", "1.2.3"])
def test_other_ids_are_text(value: str) -> None:
    assert malformed_spelling(value) is None and malformed_id(value, 100) is None


def test_a_repeated_id_is_named_with_both_rows(workspace: Project) -> None:
    table = corpus({"ham": 80, "spam": 40}, twins=0)
    ids = np.array([f"c{row}" for row in range(len(table))], dtype=object)
    ids[[99, 110]] = "c7777"
    done, _ = ingested(workspace, table.assign(id=ids), id_column="id")
    assert "row 111 (line 112) has the id 'c7777' of a.csv: row 100 (line 101)" in done.error
    ids[42] = "\u200b"
    done, _ = ingested(workspace, table.assign(id=ids), id_column="id")
    assert "row 43 (line 44) has no id" in done.error and "the id is blank" in done.error
