"""Quotes of delimited text: which enclose texts, which are data, and what a reader says where both are possible."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.production.incoming import read_rows
from stages.production.rows import Columns
from stages.tables.remarks import DIVIDED, SPANNING, STRAY
from tests.tables import MANY, WANTED, spoilt, table_of, training, values_of


def test_stray_quotes_of_a_tsv_cost_no_row(tmp_path: Path) -> None:
    rows = [*spoilt(MANY), ('"all in quotes"', "ham")]
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    found, read = table_of(tmp_path, "tweets.tsv", content)
    assert "quotes are data" in found
    assert values_of(read) == rows


@pytest.mark.parametrize("header", ["text,label", '"text","label"'])
def test_one_stray_quote_does_not_make_data_of_the_quotes_of_other_rows(tmp_path: Path, header: str) -> None:
    rows = [*MANY[:9], ('"Great" news', "ham"), *MANY[9:]]
    content = f"{header}\n" + "".join(f'"{text}",{label}\n' if text[0] != '"' else f"{text},{label}\n" for text, label in rows)
    assert values_of(table_of(tmp_path, "a.csv", content)[1]) == rows


def test_a_quoted_header_says_that_no_quoted_field_is_a_row(tmp_path: Path) -> None:
    # Without its quotes in the header, each line of this record could be a row: two fields each.
    content = '"text"\t"label"\n""\t"\r\t"\n'
    assert values_of(table_of(tmp_path, "a.tsv", content.encode())[1]) == [("", "\r\t")]


def test_stray_quotes_of_a_csv_with_quoted_fields_cost_no_row(tmp_path: Path) -> None:
    rows = spoilt(MANY)
    rows[10] = ("with, a comma", "ham")
    rows[11] = ('two\nlines, and "quotes"', "spam")
    written = {10: '"with, a comma",ham\n', 11: '"two\nlines, and ""quotes""",spam\n'}
    content = "text,label\n" + "".join(written.get(at, f"{text},{label}\n") for at, (text, label) in enumerate(rows))
    found, read = table_of(tmp_path, "a.csv", content)
    assert "quote '\"'" in found
    assert values_of(read) == rows
    assert [row.line for row in read[10:14]] == [12, 13, 15, 16]


def test_an_open_quote_far_from_the_next_one_swallows_nothing(tmp_path: Path) -> None:
    rows = [(text, label) for text, label in MANY]
    rows[5], rows[300] = ('"never closed', "ham"), ('the end"', "spam")
    content = 'text,label\n"a, b",ham\n' + "".join(f"{text},{label}\n" for text, label in rows)
    assert values_of(table_of(tmp_path, "a.csv", content)[1]) == [("a, b", "ham"), *rows]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_texts_of_several_lines_stay_whole(tmp_path: Path, delimiter: str) -> None:
    rows = [("Dear all,\nplease read\n\nthanks, Bob", "ham"), ('one\r\n"two"\r\n', "spam"), ("plain", "ham")]
    content = pd.DataFrame(rows, columns=["text", "label"]).to_csv(index=False, sep=delimiter)
    assert values_of(table_of(tmp_path, "a.csv", content)[1]) == rows


def test_quotes_escaped_by_a_backslash(tmp_path: Path) -> None:
    rows = [('he said "on time"', "ham"), ("plain", "spam"), ('a tube of 24"', "ham"), ("C:\\new, \\d+", "ham"), ('"', "spam")]
    escaped = "".join('"{}",{}\n'.format(text.replace('"', '\\"'), label) for text, label in rows * 3)
    found, read = table_of(tmp_path, "spark.csv", "text,label\n" + escaped)
    assert "escaped by a backslash" in found
    assert values_of(read) == rows * 3
    found, read = table_of(tmp_path, "doubled.csv", 'text,label\n"C:\\dir\\",ham\n"say ""a\\"" b",spam\nx,ham\n')
    assert "backslash" not in found
    assert values_of(read) == [("C:\\dir\\", "ham"), ('say "a\\" b', "spam"), ("x", "ham")]


def raw(rows: Sequence[Sequence[str]], header: str) -> str:
    """A csv whose fields are not quoted, unless they have a comma."""
    return "".join(
        ",".join(f'"{field}"' if "," in field else field for field in row) + "\n" for row in [header.split(","), *rows]
    )


def written(rows: Sequence[Sequence[str]], header: str) -> str:
    """A csv as the csv module writes it."""
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([header.split(","), *rows])
    return sink.getvalue()


def remarks_of(tmp_path: Path, content: str, **wanted: str) -> tuple[list[tuple[str | None, ...]], dict[str, int], list[str]]:
    """What training reads of a file, what it counts, and the same counts in words."""
    (tmp_path / "a.csv").write_text(content)
    read = training(tmp_path / "a.csv", wanted or WANTED)
    return list(zip(*read.table.to_pydict().values(), strict=True)), read.remarks.counts, read.remarks.in_words()


def swallowing(rows: Sequence[Sequence[str]], at: int, more: str = "") -> list[list[str]]:
    """The rows with a stray quote at the beginning of a text and at the end of the second text after it, at a position."""
    made = [list(row) for row in rows]
    made[10][at], made[12][at], made[30][at] = f'"{made[10][at]}', f'{made[12][at]}"', f"{made[30][at]}{more}"
    return made


LABELS = [(text, f"class {number % 77:02d}") for number, (text, _) in enumerate(MANY)]
NUMBERED = [(str(number), text) for number, (text, _) in enumerate(MANY)]
CODED = [(f"{number * 7919 % 10007:05d}-x{number % 7}", text) for number, (text, _) in enumerate(MANY)]
POEM = "\n".join(f"roses are red {number}, violets are blue" for number in range(9))


TABLES = [(MANY, "text,label"), (LABELS, "text,label"), (NUMBERED, "id,text"), (CODED, "id,text")]
LONG = [POEM, "ham\nham,spam\nand eggs", "shopping\n3,apples\n4,pears", "Street 1, Town\nStreet 2, Town", "a\nyes,ok\nb"]


@pytest.mark.parametrize(("rows", "header"), TABLES)
def test_rows_that_a_stray_quote_has_swallowed_are_rows_and_are_counted(tmp_path: Path, rows: Any, header: str) -> None:
    at, wanted = header.split(",").index("text"), {name: f"ingest.{name}_column" for name in header.split(",")}
    stray = swallowing(rows, at, ", and more")
    found, counts, words = remarks_of(tmp_path, raw(stray, header), **wanted)
    assert found == [tuple(row) for row in stray] and counts == {DIVIDED: 3}
    assert words[0].endswith("a.csv: line 12; set ingest.dialect.quote to the quotes of the file, if they enclose texts")
    # The header has quotes, as some programs write it; the rows have none.
    quoted = ",".join(f'"{name}"' for name in header.split(",")) + "\n" + raw(stray, header).partition("\n")[2]
    assert remarks_of(tmp_path, quoted, **wanted)[:2] == (found, counts)
    # Without a proper quote in the file, quotes are data.
    stray = swallowing(rows, at)
    found, counts, _ = remarks_of(tmp_path, raw(stray, header), **wanted)
    assert found == [tuple(row) for row in stray] and counts == {STRAY: 1}


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize(("rows", "header"), TABLES)
def test_a_text_of_several_lines_stays_whole_and_is_counted(tmp_path: Path, rows: Any, header: str, text: str) -> None:
    at, wanted = header.split(",").index("text"), {name: f"ingest.{name}_column" for name in header.split(",")}
    made = [list(row) for row in rows]
    made[5][at] = text
    found, counts, words = remarks_of(tmp_path, written(made, header), **wanted)
    assert found == [tuple(row) for row in made] and counts == {SPANNING: 1}
    assert words[0].endswith("a.csv: line 7; set ingest.dialect.quote: none, if each line is a row")


PASTED = "Here is my file,ham\nsecond line,spam\nend"


def test_a_text_that_quotes_rows_is_right_if_the_file_or_the_settings_say_so_and_is_stated_otherwise(tmp_path: Path) -> None:
    rows = [*MANY[:9], (PASTED, "ham"), *MANY[9:]]
    found, counts, _ = remarks_of(tmp_path, written(rows, "text,label"))
    assert len(found) == len(rows) + 2 and counts == {STRAY: 1}
    assert values_of(table_of(tmp_path, "a.csv", written(rows, "text,label"), dialect={"quote": '"'})[1]) == rows
    # A program that doubles quotes leaves no stray ones.
    rows.append(('he said "yes"', "ham"))
    assert remarks_of(tmp_path, written(rows, "text,label"))[:2] == (rows, {SPANNING: 1})


def test_one_column_cannot_tell_and_states_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for text, _ in MANY]
    texts[10], texts[13] = f'"{texts[10]}', f'{texts[13]}"'
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
    columns = Columns(text="text", id=None, settings={"text": "production.score.text_column"})
    assert len(list(read_rows(str(tmp_path / "a.csv"), columns))) == len(texts) - 3
    told = "records that span several lines: 1, the first at line 12; set production.score.dialect.quote: none, if each line"
    assert told in capsys.readouterr().err
