"""Tables as users have them: what is detected, which rows are read, which are rejected, and where each is."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ballast.exceptions import UserError
from stages.production.incoming import read_rows
from stages.production.rows import Columns
from stages.store.data_sections import DialectSettings
from stages.tables import delimited, labels, lines
from stages.tables.blocks import Block, splittable
from stages.tables.detect import BY_SOURCE, Expected
from stages.tables.dialect import format_of_name
from stages.tables.preview import about, read_in_words
from stages.tables.reader import open_table
from stages.tables.remarks import DIVIDED, STRAY
from stages.tables.training import read_training
from tests.tables import COLUMNS, MANY, WANTED, spoilt, table_of, training, values_of

ROWS = [("meeting at noon", "ham"), ("win a prize, now", "spam"), ("garden lunch", "ham")]
CSV = 'text,label\nmeeting at noon,ham\n"win a prize, now",spam\ngarden lunch,ham\n'


def workbook(rows: list[tuple[Any, ...]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)  # type: ignore[union-attr]
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def parquet_bytes(**columns: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
FORMS: dict[str, tuple[str, bytes, str]] = {
    "commas": ("a.csv", CSV.encode(), "csv, UTF-8, delimiter ','"),
    "a byte order mark": ("a.csv", CSV.encode("utf-8-sig"), "csv, UTF-8, delimiter ','"),
    "semicolons": ("a.csv", b"text;label\nmeeting at noon;ham\nwin a prize, now;spam\ngarden lunch;ham\n", "delimiter ';'"),
    "bars": ("a.txt", b"text|label\nmeeting at noon|ham\nwin a prize, now|spam\ngarden lunch|ham\n", "delimiter '|'"),
    "tabs in a csv": (
        "a.csv",
        b"text\tlabel\nmeeting at noon\tham\nwin a prize, now\tspam\ngarden lunch\tham\n",
        "delimiter '\\t'",
    ),
    "a line sep=": (
        "a.csv",
        b'sep=;\r\ntext;label\r\nmeeting at noon;ham\r\n"win a prize, now";spam\r\ngarden lunch;ham\r\n',
        "';'",
    ),
    "single quotes": (
        "a.csv",
        b"'text','label'\n'meeting at noon','ham'\n'win a prize, now','spam'\n'garden lunch','ham'\n",
        'quote "\'"',
    ),
    "lines of a Mac": ("a.csv", CSV.replace("\n", "\r").encode(), "csv, UTF-8"),
    "blank lines": ("a.csv", b"\n\r\n" + CSV.replace("garden", "\n\n\ngarden").encode(), "csv, UTF-8"),
    "Ctrl-Z": ("a.csv", CSV.replace("\n", "\r\n").encode() + b"\x1a", "csv, UTF-8"),
    "Ctrl-Z behind the last row": ("a.csv", CSV.rstrip().encode() + b"\x1a", "csv, UTF-8"),
    "empty fields at the end": ("a.csv", CSV.replace("ham\n", "ham,,\n").encode(), "csv, UTF-8"),
    "UTF-16 with a mark": ("a.csv", CSV.encode("utf-16"), "csv, UTF-16"),
    "UTF-16 without a mark": ("a.csv", CSV.encode("utf-16-le"), "csv, UTF-16"),
    "big-endian UTF-16": ("a.csv", CSV.encode("utf-16-be"), "csv, UTF-16"),
    "gzip": ("a.csv.gz", gzip.compress(CSV.encode()), "csv, gzip, UTF-8"),
    "gzip in two parts": ("a.csv.gz", gzip.compress(CSV[:20].encode()) + gzip.compress(CSV[20:].encode()), "csv, gzip"),
    "zstd": ("a.csv.zst", pa.compress(CSV.encode(), "zstd", asbytes=True), "csv, zstd"),
    "bzip2": ("a.csv.bz2", bz2.compress(CSV.encode()), "csv, bz2"),
    "xz": ("a.csv.xz", lzma.compress(CSV.encode()), "csv, xz"),
    "gzip without its ending": ("a.csv", gzip.compress(CSV.encode()), "csv, gzip"),
    "JSON lines": ("a.jsonl", LINES.encode(), "json (one object per line), UTF-8"),
    "JSON lines in gzip": ("a.jsonl.gz", gzip.compress(LINES.encode()), "json (one object per line), gzip"),
    "JSON lines in UTF-16": ("a.jsonl", LINES.encode("utf-16"), "json (one object per line), UTF-16"),
    "an array": ("a.json", json.dumps(OBJECTS).encode(), "json (an array of objects)"),
    "an indented array": ("a.json", json.dumps(OBJECTS, indent=1).encode(), "json (an array of objects)"),
    "an array as lines": ("a.jsonl", json.dumps(OBJECTS).encode(), "json (an array of objects)"),
    "objects over several lines": ("a.json", "\n".join(json.dumps(row, indent=2) for row in OBJECTS).encode(), "json"),
    "lines as an array": ("a.json", LINES.encode(), "json (one object per line)"),
    "parquet": ("a.parquet", parquet_bytes(text=TEXTS, label=LABELS), "parquet"),
    "parquet of categories": ("a.parquet", parquet_bytes(label=pa.array(LABELS).dictionary_encode(), text=TEXTS), "parquet"),
    "a spreadsheet": ("a.xlsx", workbook([("label", "text"), *((label, text) for text, label in ROWS)]), "xlsx, sheet 'Sheet'"),
}


@pytest.mark.parametrize("name", FORMS)
def test_training_and_production_read_the_same_rows_of_every_form(tmp_path: Path, name: str) -> None:
    file, content, words = FORMS[name]
    found, rows = table_of(tmp_path, file, content)
    assert words in found
    assert values_of(rows) == ROWS
    read = training(tmp_path / file)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == ROWS
    assert (read.records, read.rejected, len(read.table)) == (3, [], 3)
    assert [(row.text, row.id) for row in read_rows(str(tmp_path / file), COLUMNS)] == ROWS


@pytest.mark.parametrize("name", FORMS)
def test_labels_and_a_source_that_names_its_format_are_read_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FORMS[name][0]
    path.write_bytes(FORMS[name][1])
    monkeypatch.setattr(labels, "WANTED", WANTED)
    reads = [labels.read_labelled(path)]
    sources = [source for source, kind in BY_SOURCE.items() if kind == format_of_name(path.name)]
    reads += [read_training(str(path), Expected(wanted=WANTED, source=source)) for source in sources]
    for read in reads:
        assert list(zip(*read.table.to_pydict().values(), strict=True)) == ROWS


def test_kaggle_spam_in_latin1_with_columns_without_a_name(tmp_path: Path) -> None:
    rows = [(f"caf\xe9 {number}, \xa3500 prize", "spam" if number % 3 else "ham") for number in range(30)]
    # Some texts run over into the columns without a name.
    lines = [f'{label},"{text}",{"more" if number % 9 == 8 else ""},,' for number, (text, label) in enumerate(rows)]
    (tmp_path / "spam.csv").write_bytes("\r\n".join(["v1,v2,,,", *lines, ""]).encode("latin-1"))
    wanted = {"v2": "ingest.text_column", "v1": "ingest.label_column"}
    read = read_training(str(tmp_path / "spam.csv"), Expected(wanted=wanted))
    assert read.dialects == ["csv, Windows-1252 (Latin-1), delimiter ',', quote '\"', header"]
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == rows and read.rejected == []
    columns = Columns(text="v2", id=None, settings={"v2": "ingest.text_column"})
    assert [row.text for row in read_rows(str(tmp_path / "spam.csv"), columns)] == [text for text, _ in rows]


@pytest.mark.parametrize(
    ("encoding", "text", "words"),
    [
        ("cp1252", "café, £500 “prize” – naïve", "Windows-1252 (Latin-1)"),
        ("latin-1", "Grüße aus Köln, Straße für Ärzte", "Windows-1252 (Latin-1)"),
        ("cp1251", "Привет, как дела? Сегодня вечером мы идём в кино с друзьями", "Windows-1251"),
        ("gb18030", "你好,我们今天晚上去看电影,请告诉我你什么时候有时间", "gb"),
        ("gbk", "你好，我的包裹什么时候到？谢谢", "gb18030"),
        ("cp1252", "Où est mon colis\nGrüße aus Köln\nEl señor está aquí\nNão, às três\nPåske på ø", "Windows-1252 (Latin-1)"),
        ("utf-8", "café, 垃圾, спам", "UTF-8"),
    ],
)
def test_encodings_are_detected_and_named(tmp_path: Path, encoding: str, text: str, words: str) -> None:
    rows = [(f"{line} {number}", "ham") for number in range(30) for line in text.splitlines()]
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    found, read = table_of(tmp_path, "a.tsv", content.encode(encoding))
    assert words in found and "uncertain" not in found and values_of(read) == rows


@pytest.mark.parametrize(
    ("encoding", "text", "detected"),
    [
        ("cp1250", "Dobrý den, můžete mi říct, kdy přijde zásilka? Děkuji", True),
        ("iso8859_2", "Dzień dobry, proszę o pomoc, zażółć gęślą jaźń", False),
        ("cp1250", "Jó napot, nem működik a készülék, kérem segítsenek, tűrő", True),
        ("cp1250", "Bună ziua, vă rog să îmi spuneţi când ajunge coletul, mulţumesc", True),
        ("cp1254", "Merhaba, kargom hâlâ gelmedi, şikayet etmek istiyorum, teşekkürler, ığdır", False),
        ("cp1257", "Labdien, kad pienāks mans sūtījums? Paldies, ļoti gaidu, šķiet", False),
        ("iso8859_15", "Das kostet 5 € und ist schön, œuvre", False),
        ("cp850", "Guten Tag, wo bleibt mein Paket? Grüße aus München, schöne Straße", True),
        ("cp932", "こんにちは、荷物はいつ届きますか。ありがとう", False),
    ],
)
def test_an_uncertain_encoding_is_named_with_the_others(tmp_path: Path, encoding: str, text: str, detected: bool) -> None:
    rows = [(f"{text} {number}", "ham") for number in range(30)]
    content = ("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)).encode(encoding)
    found, read = table_of(tmp_path, "a.tsv", content)
    assert "(uncertain, perhaps " in found and "set dialect.encoding)" in found
    assert (values_of(read) == rows) is detected and (detected or codecs.lookup(encoding).name in found)
    found, read = table_of(tmp_path, "a.tsv", content, dialect={"encoding": encoding})
    assert "uncertain" not in found and values_of(read) == rows


def test_some_wrong_bytes_in_utf8_are_rejected_rows_and_no_other_encoding(tmp_path: Path) -> None:
    content = b"text,label\n" + "naïve café,ham\n".encode() * 5 + b"caf\xe9,ham\n"
    found, rows = table_of(tmp_path, "a.csv", content)
    assert "UTF-8" in found and len(rows) == 6
    with pytest.raises(UserError, match=r"a\.csv: row 6 \(line 7\): the column 'text' is not valid UTF-8, .*rejects: 1"):
        training(tmp_path / "a.csv")
    read = training(tmp_path / "a.csv", rejects=1)
    assert (len(read.table), read.records, read.lines) == (5, 6, 7)
    assert read.rejected_by_reason == {"the column 'text' is not valid UTF-8": 1}


EXTRA: list[Any] = [1, "a", 2.5, None, True, [1, "b"], {"c": 1}, 2**70, "", "2026-01-31"]


def test_other_columns_may_change_their_type(tmp_path: Path) -> None:
    objects = [{"more": EXTRA[at % len(EXTRA)], "text": text, "label": label} for at, (text, label) in enumerate(MANY)]
    objects += [{"text": "without the column", "label": "ham"}]
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    (folder / "b.json").write_text(json.dumps(objects))
    for part, more in enumerate(([1, 2], ["a", "b"], [[1], [2]], None)):
        columns = {"text": ["one more", "and one"], "label": ["ham", "spam"]} | ({} if more is None else {"more": more})
        (folder / f"c{part}.parquet").write_bytes(parquet_bytes(**columns))
    expected = [*MANY, ("without the column", "ham")] * 2 + [("one more", "ham"), ("and one", "spam")] * 4
    read = training(folder)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == expected and read.rejected == []
    assert [(row.text, row.id) for row in read_rows(str(folder), COLUMNS)] == expected


def test_a_file_without_a_header_follows_its_own_advice(tmp_path: Path) -> None:
    content = "ham," + "my number is five " * 1000 + "\nspam,win\n"
    with pytest.raises(UserError) as error:
        table_of(tmp_path, "a.csv", content)
    assert len(str(error.value)) < 600
    assert "ingest.dialect.header: false" in str(error.value) and "column1, column2" in str(error.value)
    wanted = {"column2": "ingest.text_column", "column1": "ingest.label_column"}
    found, rows = table_of(tmp_path, "a.csv", content, wanted=wanted, dialect={"header": False})
    assert "no header (2 columns)" in found and rows[1].values == ("win", "spam")
    assert [(row.number, row.line) for row in rows] == [(1, 1), (2, 2)]


def test_a_carriage_return_within_a_text_ends_no_line(tmp_path: Path) -> None:
    content = 'text,label\r\na\rb,ham\r\n"c\rd",spam\r\ne,ham\r\n'
    assert values_of(table_of(tmp_path, "a.csv", content)[1]) == [("a\rb", "ham"), ("c\rd", "spam"), ("e", "ham")]
    rows = table_of(tmp_path, "a.csv", "text\na\rb\nc\n", wanted={"text": "ingest.text_column"})[1]
    assert values_of(rows) == [("a\rb",), ("c",)] and [row.line for row in rows] == [2, 3]


def test_one_column_has_no_delimiter(tmp_path: Path) -> None:
    wanted = {"text": "production.score.text_column"}
    found, rows = table_of(tmp_path, "a.csv", 'text\nHello, world; you\n"in ""quotes"", too"\n""\n', wanted=wanted)
    assert "one column" in found
    assert values_of(rows) == [("Hello, world; you",), ('in "quotes", too',), ("",)]


def test_numbers_of_json_keep_their_digits_and_nan_is_missing(tmp_path: Path) -> None:
    lines = (
        '{"text": 9223372036854775813, "label": 1e-3}\n'
        '{"text": "a", "label": NaN}\n'
        '{"text": "nan", "label": "NaN"}\n'
        '{"text": true, "label": null}\n'
        '{"text": "b", "label": Infinity}\n'
        f'{{"text": {"9" * 5000}, "label": 0.10}}\n'
    )
    for name, content in (("a.jsonl", lines), ("a.json", f"[{','.join(lines.splitlines())}]")):
        rows = table_of(tmp_path, name, content)[1]
        expected = [("9223372036854775813", "1e-3"), ("a", None), ("nan", "NaN"), ("true", None), ("9" * 5000, "0.10")]
        assert values_of(rows) == expected
        assert [(row.number, row.reason) for row in rows if row.reason] == [
            (5, "the column 'label' holds Infinity; expected text")
        ]


ARRAYS = [json.dumps(OBJECTS[:2]), json.dumps(OBJECTS[2:])]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(ARRAYS),
        "".join(ARRAYS),
        json.dumps(OBJECTS[:2], indent=1) + "\n" + json.dumps(OBJECTS[2]),
        json.dumps(OBJECTS[0], indent=1) + json.dumps(OBJECTS[1:]),
        "[]\n" + LINES,
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_what_follows_a_json_array_is_read(tmp_path: Path, name: str, content: str) -> None:
    assert values_of(table_of(tmp_path, name, content)[1]) == ROWS


def test_a_stray_bracket_of_json_is_an_error_with_its_line(tmp_path: Path) -> None:
    objects = [json.dumps(row, indent=1) for row in OBJECTS]
    for content, line in (("\n".join([objects[0], "]", *objects[1:]]), 5), (f"[{objects[0]}]\n]\n{objects[1]}", 5)):
        with pytest.raises(UserError, match=rf"a\.json: row 2 \(line {line}\): invalid JSON: .* in '\]"):
            table_of(tmp_path, "a.json", content)
    with pytest.raises(UserError, match=r"a\.json: line 2: the array is not closed"):
        table_of(tmp_path, "a.json", "\n".join([ARRAYS[0], ARRAYS[1][:-1]]))


def test_an_array_may_be_longer_than_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 50)
    found, rows = table_of(tmp_path, "a.json", json.dumps(OBJECTS))
    assert "array" in found and values_of(rows) == ROWS


@pytest.mark.parametrize("encoding", ["punycode", "IDNA", "rot13", "base64"])
def test_codecs_of_other_things_are_no_encodings(encoding: str) -> None:
    with pytest.raises(ValueError, match="is no text encoding of Python"):
        DialectSettings(encoding=encoding)


def test_types_of_parquet_and_of_spreadsheets_become_text(tmp_path: Path) -> None:
    numbers = parquet_bytes(text=pa.array([2**63 + 5, 7, 1], pa.uint64()), label=[0.5, float("nan"), float("inf")])
    rows = table_of(tmp_path, "a.parquet", numbers)[1]
    assert values_of(rows) == [("9223372036854775813", "0.5"), ("7", None)]
    assert (rows[2].number, rows[2].reason) == (3, "the column 'label' holds inf; expected text or a finite number")
    sheet = workbook([("text", "label"), (5, True), (1.5, None), (None, None), ("x", "nan")])
    rows = table_of(tmp_path, "a.xlsx", sheet)[1]
    assert values_of(rows) == [("5", "true"), ("1.5", None), ("x", "nan")]
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 3), (3, 5)]
    # Formulas that found no value, and one that failed.
    sheet = workbook([("text", "label"), ("a", "#N/A"), ("b", "#REF!"), ("#N/A", "ham"), ("N/A", "NA")])
    rows = table_of(tmp_path, "a.xlsx", sheet)[1]
    assert values_of(rows) == [("a", None), (None, "ham"), ("N/A", "NA")]
    failed = "the column 'label' holds #REF!, the error of a formula; correct it"
    assert [(row.number, row.line, row.reason) for row in rows if row.reason] == [(2, 3, failed)]
    # A spreadsheet stores every number as a float, and another number may have the same one.
    sheet = workbook([("text", "label"), ("a", 2**53 - 1), ("b", 2**53 + 1), ("c", 2**63 + 5), ("d", str(2**63 + 5))])
    rows = table_of(tmp_path, "a.xlsx", sheet)[1]
    assert values_of(rows) == [("a", "9007199254740991"), ("d", "9223372036854775813")]
    lost = "the column 'label' holds a number beyond 53 bits, which has lost its digits; write such numbers as text"
    assert [(row.number, row.line, row.reason) for row in rows if row.reason] == [(2, 3, lost), (3, 4, lost)]


def edited(content: bytes, pattern: str, replacement: str) -> bytes:
    """A spreadsheet whose first sheet is edited."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, re.sub(pattern.encode(), replacement.encode(), part) if "sheet1" in name else part)
    return sink.getvalue()


@pytest.mark.parametrize("size", ["A1", "A1:B2", "A1:A4"])
def test_a_spreadsheet_may_state_a_wrong_size(tmp_path: Path, size: str) -> None:
    sheet = edited(workbook([("text", "label"), *ROWS]), 'ref="A1:B4"', f'ref="{size}"')
    assert values_of(table_of(tmp_path, "a.xlsx", sheet)[1]) == ROWS


def test_sheets_that_are_not_read_are_named(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        for name, rows in (("jan", ROWS), ("feb", ROWS), ("empty", [])):
            pd.DataFrame(rows, columns=["text", "label"] if rows else None).to_excel(book, sheet_name=name, index=False)
    assert training(tmp_path / "a.xlsx").dialects == ["xlsx, sheet 'jan'; other sheets are not read: 'feb'"]


def test_codes_of_characters_and_formulas_without_a_value_in_a_spreadsheet(tmp_path: Path) -> None:
    sheet = workbook([("text", "label"), ("a_x000D_\nb", "ham"), ("_x005F_x000D_", "ham"), ("c", "=B2"), ("d", '=""')])
    # Excel stores the value of a formula; that of the last one is "".
    sheet = edited(sheet, '<c r="B5"', '<c r="B5" t="str"')
    rows = table_of(tmp_path, "a.xlsx", sheet)[1]
    assert values_of(rows) == [("a\r\nb", "ham"), ("_x000D_", "ham"), ("d", None)]
    reason = "the column 'label' holds a formula without a stored value; open the file in a spreadsheet and save it"
    assert [(row.number, row.line, row.reason) for row in rows if row.reason] == [(3, 4, reason)]


def archive(**files: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, content in files.items():
            file.writestr(f"{name}.csv", content)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", parquet_bytes(text=["a"]), "is a parquet file; rename it to end in .parquet, or set ingest.source: parquet"),
        ("a.csv", workbook([("text",)]), "is a zip archive or a spreadsheet; if Excel opens it, rename it to end in .xlsx"),
        ("a.zip", archive(train=CSV), 'is a zip archive; name a file in it: set ingest.path: a.zip and ingest.files: "tra'),
        ("a.xls", b"\xd0\xcf\x11\xe0", "is an old Excel file; save it as .xlsx or .csv"),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-10], "cannot be read as csv: Compressed file ended"),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:30] + b"x" * 30, "cannot be read as csv: "),
        ("a.csv.gz", gzip.compress(gzip.compress(CSV.encode()), mtime=0), "is compressed twice, with gzip and gzip"),
        ("a.csv.zst", pa.compress(CSV.encode(), "zstd", asbytes=True)[:-9], "cannot be read as csv"),
        ("a.parquet.gz", gzip.compress(parquet_bytes(text=["a"]), mtime=0), "gzip; parquet is read only uncompressed"),
        ("a.json", '[{"text": "a", "label": "b"},\n{"text" "c"}]', "a.json: row 2 (line 2): invalid JSON: Expecting ':'"),
        ("a.json", '[{"text": "a", "label": "b"},\n', "a.json: line 2: the array is not closed; the file may be cut off"),
        ("a.json", '{"data": [{"text": "a"}]}', "a.json: no column 'text' (ingest.text_column): "),
        ("a.doc", CSV, "unknown format '.doc'; expected a name that ends in .csv, .tsv, "),
        ("a.csv", 'text,label\n"a",b,"c\n', "row 1 (line 2): malformed csv: unexpected end of data"),
        ("a.csv", "text,label\na,b\nc\nd\ne,f,g\nh\n", "; a.csv: row 4 (line 5): malformed csv: 3 fields, expected 2"),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_what_to_do(
    tmp_path: Path, name: str, content: str | bytes, words: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as error:
        training(Path(name))
    assert words in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 800


def test_rejected_rows_are_counted_named_and_left_out_on_request(tmp_path: Path) -> None:
    content = "text,label\na,b\nc\n\nd\ne,f,g\nh\ni\0,j\nk,l\n"
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=r"row 2 .*row 3 .*row 4 .* and 2 more; .*rejects: 5 to leave out 5 rows of 7"):
        training(tmp_path / "a.csv", rejects=4)
    read = training(tmp_path / "a.csv", rejects=5)
    assert read.table.to_pydict() == {"text": ["a", "k"], "label": ["b", "l"]}
    assert about([read]) == {
        "files": 1,
        "lines": 9,
        "records": 7,
        "rejected": {"malformed csv": 4, "the column 'text' has a NUL character": 1},
        "dialect": ["csv, UTF-8, delimiter ',', quote '\"', header"],
    }
    assert [(row.number, row.line) for row in read.rejected] == [(2, 3), (3, 5), (4, 6), (5, 7), (6, 8)]
    assert read.places.of(1).endswith("a.csv: row 7 (line 9)")


def test_one_rule_numbers_every_kind_of_fault(tmp_path: Path) -> None:
    body = "text,label\n" + '"two\nlines",ham\n' * 10 + "".join(f"{text},{label}\n" for text, label in MANY)
    for last in ("one,two,ham\n", "a\0b,ham\n", '"one\n'):
        (tmp_path / "a.csv").write_text(body + last)
        with pytest.raises(UserError, match=r"a\.csv: row 371 \(line 382\): "):
            training(tmp_path / "a.csv")


@pytest.mark.parametrize("quoted", [False, True])
def test_a_backslash_and_n_is_a_missing_value_and_is_counted(tmp_path: Path, quoted: bool) -> None:
    # The second file is read a record at a time.
    content = "text\tlabel\na\tham\n\\N\tspam\nb\t\\N\nc \\N\tN\n" + ('"d\te"\tham\n"f\ng"\t\\N\n' if quoted else "")
    expected = [("a", "ham"), (None, "spam"), ("b", None), ("c \\N", "N")] + [("d\te", "ham"), ("f\ng", None)] * quoted
    assert values_of(table_of(tmp_path, "a.tsv", content)[1]) == expected
    read = training(tmp_path / "a.tsv")
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == expected
    words = f"missing values, written as \\N: {3 if quoted else 2}, the first at {tmp_path}/a.tsv: line 3"
    spanning = f"records that span several lines: 1, the first at {tmp_path}/a.tsv: line 7; set ingest.dialect.quote: none, if "
    found = read.remarks.in_words()
    assert found[0] == words and [line[: len(spanning)] for line in found[1:]] == [spanning] * quoted
    assert read_in_words(read)[1:-1] == found
    assert list(read_rows(str(tmp_path / "a.tsv"), COLUMNS))[1].text is None


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("first", ['"a, b",ham\n', '"a, b""",ham\n"c\nd",ham\n'])
def test_a_header_within_the_rows_is_rejected(tmp_path: Path, mark: str, first: str) -> None:
    content = f'{mark}"text",label\n{first}text,ham\nx,label\n'
    expected = values_of(table_of(tmp_path, "a.csv", content)[1])
    assert expected[-2:] == [("text", "ham"), ("x", "label")]
    content += content + content.replace('"text"', "text")
    rows = table_of(tmp_path, "a.csv", content)[1]
    assert values_of(rows) == expected * 3
    assert [row.reason for row in rows if row.reason] == ["the row repeats the header"] * 2


def test_folders_and_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "train.parquet"
    folder.mkdir()
    for part in range(3):
        (folder / f"part-{part}.snappy.parquet").write_bytes(parquet_bytes(text=[f"text {part}"], label=["ham"]))
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.crc").touch()
    read = training(folder)
    assert read.table["text"].to_pylist() == ["text 0", "text 1", "text 2"]
    assert read.places.of(2).endswith("train.parquet/part-2.snappy.parquet: row 1")
    for number in (1, 2, 10):
        (tmp_path / f"month{number}.csv").write_text(f"text,label\nof month {number},ham\n")
    read = read_training(str(tmp_path / "month[0-9].csv"), Expected(wanted=WANTED))
    assert read.table["text"].to_pylist() == ["of month 1", "of month 2"]
    assert about([read])["files"] == 2 and about([read])["records"] == 2
    with pytest.raises(UserError, match=r"holds 3 files, but ingest\.sha256 pins the bytes of one"):
        training(folder, sha256="0" * 64)


@pytest.mark.parametrize(
    ("name", "content"), [("b.csv", b""), ("b.csv.gz", gzip.compress(b"")), ("b.jsonl", b""), ("b.json", b"[]")]
)
def test_an_empty_part_has_no_rows_and_a_truncated_one_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / name).write_bytes(content)
    read = training(tmp_path)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == ROWS
    assert read.dialects == ["csv, UTF-8, delimiter ',', quote '\"', header", "no rows"] and (
        read.records,
        len(read.places.files),
    ) == (3, 2)
    assert [(row.text, row.id) for row in read_rows(str(tmp_path), COLUMNS)] == ROWS
    (tmp_path / "c.parquet").touch()
    with pytest.raises(UserError, match=r"c\.parquet: cannot be read as parquet"):
        training(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(UserError, match=r"README\.md: unknown format '\.md'; .*; ingest\.files selects files$"):
        training(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(OBJECTS), "it looks like JSON: rename it to end in .json, or set ingest.source: json"),
        (LINES, "it looks like JSON: rename it to end in .json, or set ingest.source: json"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>\n", "it looks like a web page, such as an error page of a server"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "it is a pointer of Git LFS: `git lfs pull`"),
    ],
)
def test_what_is_no_table_is_named_and_the_advice_works(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError) as error:
        training(tmp_path / "a.csv")
    assert "a.csv: no column 'text' (ingest.text_column)" in str(error.value) and words in str(error.value)
    assert "dialect" not in str(error.value) and len(str(error.value)) < 600
    if "JSON" in words:
        read = read_training(str(tmp_path / "a.csv"), Expected(wanted=WANTED, source="json"))
        assert list(zip(*read.table.to_pydict().values(), strict=True)) == ROWS


def test_leaving_out_every_row_is_no_advice(tmp_path: Path) -> None:
    # R writes a column of row names that the header lacks.
    (tmp_path / "a.csv").write_text(
        '"text","label"\n' + "".join(f'"{at}","{text}","{label}"\n' for at, (text, label) in enumerate(MANY))
    )
    with pytest.raises(UserError) as error:
        training(tmp_path / "a.csv")
    assert "row 1 (line 2): malformed csv: 3 fields, expected 2" in str(error.value)
    assert "and 357 more; correct them, or change ingest.dialect (read as csv" in str(error.value)
    assert "rejects" not in str(error.value)


@pytest.mark.parametrize(
    ("dialect", "content", "expected"),
    [
        ({"delimiter": "~"}, "text~label\na, b~ham\n", [("a, b", "ham")]),
        ({"quote": "none"}, 'text,label\n"a",ham\n', [('"a"', "ham")]),
        ({"escape": "double"}, 'text,label\n"a\\"",ham\n', [('"a\\"', '"ham')][:0]),
        ({"encoding": "cp1250"}, "text,label\nłódź,ham\n".encode("cp1250"), [("łódź", "ham")]),
        ({"compression": "none", "encoding": "latin-1"}, b"text,label\n\xe9,ham\n", [("é", "ham")]),
    ],
)
def test_settings_overrule_detection(tmp_path: Path, dialect: Mapping[str, Any], content: Any, expected: list[Any]) -> None:
    rows = values_of(table_of(tmp_path, "a.csv", content, dialect=dialect)[1])
    assert rows == expected or not expected


# Anything but line ends that a reader may change: csv writers keep them in quotes.
HOSTILE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1a"), max_size=12) | st.text(
    "a\"'\\,;\t|\n\r é\u2028#=", max_size=12
)
CELLS = st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=8)


def written(rows: list[tuple[str, str]], form: str) -> tuple[str, bytes]:
    """A file of the rows in a format and dialect that we claim."""
    kind, _, detail = form.partition(" ")
    frame = pd.DataFrame(rows, columns=["text", "label"]).astype("str")
    if kind == "csv":
        delimiter, encoding = {
            "comma": (",", "utf-8"),
            "semicolon": (";", "utf-8-sig"),
            "tab": ("\t", "utf-16"),
            "bar": ("|", "utf-8"),
        }[detail]
        return "a.csv", frame.to_csv(index=False, sep=delimiter, quoting=1, lineterminator="\n").encode(encoding)
    if kind == "minimal":
        compressions: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
            "comma": (",", bytes),
            "semicolon": (";", bz2.compress),
            "tab": ("\t", lzma.compress),
            "bar": ("|", partial(pa.compress, codec="zstd", asbytes=True)),
        }
        delimiter, compress = compressions[detail]
        return "a.csv", compress(frame.to_csv(index=False, sep=delimiter, lineterminator="\r\n").encode())
    if kind == "backslash":
        escaped = frame.map(lambda text: '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"')))
        return "a.csv", "".join(f"{text},{label}\n" for text, label in [("text", "label"), *escaped.to_numpy()]).encode()
    if kind == "lines":
        return "a.jsonl", "".join(json.dumps(dict(zip(frame, row, strict=True))) + "\n" for row in rows).encode()
    if kind == "array":
        return "a.json.gz", gzip.compress(json.dumps([dict(zip(frame, row, strict=True)) for row in rows], indent=1).encode())
    return "a.parquet", parquet_bytes(text=[row[0] for row in rows], label=[row[1] for row in rows])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=CELLS, form=st.sampled_from(["csv comma", "csv semicolon", "csv tab", "csv bar", "lines", "array", "parquet"]))
def test_hostile_texts_come_back_exactly_in_both_readers(tmp_path: Path, rows: list[tuple[str, str]], form: str) -> None:
    name, content = written(rows, form)
    assert values_of(table_of(tmp_path, name, content)[1]) == rows
    assert [(row.text, row.id) for row in read_rows(str(tmp_path / name), COLUMNS)] == rows
    read = training(tmp_path / name)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == rows


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=CELLS, form=st.sampled_from(["minimal comma", "minimal semicolon", "minimal tab", "minimal bar", "backslash"]))
def test_hostile_texts_with_few_quotes_come_back_exactly_or_a_line_states_the_doubt(
    tmp_path: Path, rows: list[tuple[str, str]], form: str
) -> None:
    name, content = written(rows, form)
    (tmp_path / name).write_bytes(content)
    dialect = DialectSettings(escape="backslash") if form == "backslash" else DialectSettings()
    read = read_training(str(tmp_path / name), Expected(wanted=WANTED, dialect=dialect), rejects=1000)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == rows or read.remarks.counts.keys() & {DIVIDED, STRAY}
    expected = Expected(wanted=WANTED, dialect=dialect.model_copy(update={"quote": '"'}))
    read = read_training(str(tmp_path / name), expected)
    assert list(zip(*read.table.to_pydict().values(), strict=True)) == rows


def in_both_ways(path: Path, expected: Expected) -> list[tuple[Any, ...]]:
    """All that is read of a file, with blocks and a record at a time."""
    outcomes = []
    for split in (splittable, lambda dialect: False):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(delimited, "splittable", split)
            table = open_table(path, path.name, expected)
            rows = list(table.rows())
            read = read_training(str(path), expected, rejects=1000)
        places = [read.places.of(row) for row in range(len(read.table))]
        outcomes.append((rows, table.total_lines, read.table.to_pydict(), places, read.lines, read.records, read.rejected))
    return outcomes


# Lines of which many are regular, and of which some have what a rule is about.
PIECES = st.sampled_from(["a", "b c", '"a"', '"b,c"', '"say ""a"""', "", "é", 'a"b'])
FAULTS = st.text('a",;\\\n\r\t\x1f\0\ufeff\ud800\x1a', max_size=6)
ODD = st.sampled_from(['"a"b', '"a', "\ufeffa", '"a\\"', '"a\\"",b"', 'a\\"', "\\\\", 'a"', "'a,b'", "'a"])
FIELDS = PIECES | PIECES | PIECES | ODD | FAULTS
PHYSICAL = st.tuples(
    FIELDS, st.sampled_from(",,,,;"), FIELDS, st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n", ",\n", ""])
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    physical=st.lists(PHYSICAL.map("".join), max_size=12),
    quote=st.sampled_from([None, '"', '"', "none", "'"]),
    escape=st.sampled_from(["double", "double", "backslash"]),
    characters=st.integers(1, 60),
    wanted=st.sampled_from([("text", "label"), ("label",), ("column2", "column1")]),
)
# The first block ends within a line end.
@example(physical=["a,b\r\n", "c,d\n"], quote=None, escape="double", characters=4, wanted=("text", "label"))
def test_blocks_and_single_records_give_the_same(
    tmp_path: Path, physical: list[str], quote: Any, escape: Any, characters: int, wanted: tuple[str, ...]
) -> None:
    path, header = tmp_path / "a.csv", "label" in wanted
    first = "text,label\n" if header else "a,b\n" * (1 + len(physical))
    path.write_bytes((first + "".join(physical)).encode("utf-8", "surrogatepass"))
    dialect = DialectSettings(delimiter=",", quote=quote, escape=escape, header=header)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "BLOCK_CHARACTERS", characters)
        blocks, records = in_both_ways(path, Expected(wanted=dict.fromkeys(wanted, "ingest.text_column"), dialect=dialect))
    assert blocks == records


@pytest.mark.parametrize("file", ["plain", "windows", "quoted", "one column", "quotes are data"])
def test_regular_lines_are_read_in_blocks(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_CHARACTERS", 1000)
    rows = spoilt(MANY) if file == "quotes are data" else MANY
    frame = pd.DataFrame(rows, columns=["text", "label"])
    quoting = {"quoted": 1, "quotes are data": 3}.get(file, 0)
    content = frame.to_csv(index=False, sep="\t", quoting=quoting, lineterminator="\r\n" if file == "windows" else "\n")  # type: ignore[arg-type]
    if file == "one column":
        content = content.replace("\t", " ").replace("text label", "text")
    (tmp_path / "a.tsv").write_bytes(content.encode())
    expected = Expected(wanted={"text": "ingest.text_column"})
    parts = list(open_table(tmp_path / "a.tsv", "a.tsv", expected).parts())
    assert len(parts) > 5 and all(isinstance(part, Block) for part in parts)
    blocks, records = in_both_ways(tmp_path / "a.tsv", expected)
    assert blocks == records and len(blocks[0]) == 360
