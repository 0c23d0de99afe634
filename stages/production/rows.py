"""Read the rows of one file with production messages; a malformed row affects no other row."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError, suggestion
from stages.production.malformed import EXCERPT, is_utf8
from stages.store.ids import EXACT
from stages.store.places import error_text

# Characters of a line or field that are read at most.
LONGEST_LINE = 1 << 24
# Bytes to read ahead; the 50 MB of s3fs would be most of the memory that scoring needs.
BLOCK_BYTES = 1 << 22
PARQUET_ROWS = 1000
# Key names to remember, from which an error suggests the nearest.
KNOWN_NAMES = 100
TOO_LONG = f"the line is longer than {LONGEST_LINE:,} characters"


class Row(NamedTuple):
    """A row of a source: `number` counts its rows from 1, and a malformed row has a `reason`."""

    source: str
    number: int
    id: Any
    text: Any
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of the text and of the id; without an id column, the row number is the id.

    settings : the key of params.yaml that names each column.
    """

    text: str
    id: str | None
    settings: dict[str, str]

    @property
    def wanted(self) -> list[str]:
        return [self.text] if self.id is None else [self.text, self.id]

    def missing(self, source: str, name: str, present: list[str]) -> UserError:
        """The error of a source that lacks a column."""
        return UserError(
            f"{source}: no column {name!r} ({self.settings[name]}): {suggestion(name, present) if present else 'it is empty'}"
        )

    def check(self, source: str, present: list[str]) -> None:
        """Raise UserError for a column that a source lacks or has twice."""
        for name in self.wanted:
            if name not in present:
                raise self.missing(source, name, present)
            if present.count(name) > 1:
                raise UserError(f"{source}: more than one column {name!r} ({self.settings[name]})")


class LongLine(Exception):  # noqa: N818
    """A line that is too long to hold in memory; its argument is the beginning of the line."""


@dataclass
class Lines:
    """Iterates over the lines of a file; lines `taken` for a record that is malformed can be read `again`.

    Raises LongLine for a line longer than LONGEST_LINE, which is skipped.
    """

    file: io.TextIOBase
    taken: list[str | LongLine] = field(default_factory=list)
    again: deque[str | LongLine] = field(default_factory=deque)

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else read_line(self.file)
        if line == "":
            raise StopIteration
        self.taken.append(line)
        if isinstance(line, LongLine):
            raise line
        return line

    def all_but_first_again(self) -> str:
        """Put back all lines taken except the first, and return the first."""
        first, *others = self.taken
        self.again.extendleft(reversed(others))
        return str(first)


def read_line(file: io.TextIOBase) -> str | LongLine:
    """The next line with its line end, or "" at the end of the file; only the beginning of a line that is too long."""
    line = file.readline(LONGEST_LINE)
    if len(line) < LONGEST_LINE or line.endswith("\n"):
        return line
    while (more := file.readline(LONGEST_LINE)) and not more.endswith("\n"):
        pass
    return LongLine(line[:EXCERPT])


def text_file(file: Any, newline: str) -> io.TextIOWrapper:
    """A binary file as text; bytes that are not UTF-8 become lone surrogates, which `malformed_text` rejects."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def read_csv(source: str, file: Any, columns: Columns, *, delimiter: str) -> Iterator[Row]:
    """Rows of a delimited file with a header; quoted fields may contain line ends.

    A quote that is never closed makes only its own line malformed, not the rows after it.
    """
    csv.field_size_limit(LONGEST_LINE)
    with text_file(file, newline="") as opened:
        yield from csv_rows(source, Lines(opened), columns, delimiter)


def csv_rows(source: str, lines: Lines, columns: Columns, delimiter: str) -> Iterator[Row]:
    """Rows of a delimited file's lines; see `read_csv`."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except (csv.Error, LongLine) as error:
        raise UserError(f"{source}: the first line must name the columns, but cannot be read: {error_text(error)}") from error
    if not all(map(is_utf8, header)):
        raise UserError(f"{source}: the first line must name the columns, but it is not UTF-8")
    columns.check(source, header)
    text_at, id_at = header.index(columns.text), None if columns.id is None else header.index(columns.id)
    number = 0
    while True:
        lines.taken.clear()
        try:
            fields = next(reader, None)
        except (csv.Error, LongLine) as error:
            number += 1
            long = isinstance(lines.taken[0], LongLine)
            words = "a quote is not closed" if isinstance(error, LongLine) else error
            reason = TOO_LONG if long else f"malformed csv: {words}"
            yield Row(source, number, None, lines.all_but_first_again(), reason)
            continue
        if fields is None:
            return
        # Blank lines are not rows, as in pyarrow and pandas.
        if not fields:
            continue
        number += 1
        if len(fields) != len(header):
            line = "".join(map(str, lines.taken))
            yield Row(source, number, None, line, f"malformed csv: {len(fields)} fields, expected {len(header)}")
        else:
            yield Row(source, number, number if id_at is None else fields[id_at], fields[text_at])


def read_jsonl(source: str, file: Any, columns: Columns) -> Iterator[Row]:
    """Rows of a file with one JSON object a line; other columns may hold any value."""
    with text_file(file, newline="\n") as lines:
        yield from jsonl_rows(source, lines, columns)


def jsonl_rows(source: str, lines: io.TextIOBase, columns: Columns) -> Iterator[Row]:
    """Rows of a file's lines; see `read_jsonl`."""
    # Whether any row has a wanted column, and the keys of the first rows.
    seen, names = dict.fromkeys(columns.wanted, False), set[str]()
    number = 0
    while line := read_line(lines):
        if isinstance(line, str) and not line.strip():
            continue
        number += 1
        if isinstance(line, LongLine):
            yield Row(source, number, None, str(line), TOO_LONG)
            continue
        try:
            content = json.loads(line, object_pairs_hook=object_of)
        except (ValueError, RecursionError) as error:
            yield Row(source, number, None, line, f"invalid JSON: {error_text(error)}")
            continue
        if not isinstance(content, dict):
            yield Row(source, number, None, line, "invalid JSON: not an object")
            continue
        if isinstance(content, Ambiguous) and (again := [name for name in columns.wanted if name in content.again]):
            yield Row(source, number, None, line, f"invalid JSON: the key {again[0]!r} occurs twice")
            continue
        for name in seen:
            seen[name] = seen[name] or name in content
        if len(names) < KNOWN_NAMES:
            names.update(name[:EXCERPT] for name in list(content)[:KNOWN_NAMES])
        yield Row(source, number, number if columns.id is None else content.get(columns.id), content.get(columns.text))
    if names:
        for name in (name for name, present in seen.items() if not present):
            raise columns.missing(source, name, [key for key in names if is_utf8(key)])


class Ambiguous(dict[str, Any]):
    """A JSON object with keys that occur `again`; the last value of each counts."""

    again: frozenset[str] = frozenset()


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its keys and values."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    ambiguous = Ambiguous(content)
    counts = Counter(key for key, _ in pairs)
    ambiguous.again = frozenset(key for key, count in counts.items() if count > 1)
    return ambiguous


def read_parquet(source: str, file: Any, columns: Columns) -> Iterator[Row]:
    """Rows of a parquet file; checksums are verified if the file has any."""
    digest.check(file, required=False)
    table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True)
    columns.check(source, table.schema_arrow.names)
    number = 0
    for batch in table.iter_batches(PARQUET_ROWS, columns=columns.wanted):
        texts = column_texts(source, columns.text, batch.column(columns.text))
        if columns.id is None:
            ids: list[Any] = list(range(number + 1, number + 1 + len(texts)))
        else:
            ids = column_texts(source, columns.id, batch.column(columns.id))
        for id_, text in zip(ids, texts, strict=True):
            number += 1
            yield Row(source, number, id_, text)


def column_texts(source: str, name: str, column: pa.Array) -> list[str | float | None]:
    """The values of a column as text; raises UserError for nested values.

    Numbers that are not finite, or too large for exact digits, stay numbers, which are malformed ids and texts.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    numbers = column.to_pylist() if pa.types.is_floating(kind) else [None] * len(column)
    inexact = [None if number is None or abs(number) <= EXACT else float(number) for number in numbers]
    try:
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            column = pc.cast(column, pa.large_string())
        values = pc.cast(column, pa.large_binary()).to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"{source}: the column {name!r} holds {column.type}, expected text") from error
    texts = [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    return [text if number is None else number for text, number in zip(texts, inexact, strict=True)]
