"""Read the files of a source as one table of training data, with the place of each row, the rejected rows and counts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.printable import counted, one_line
from stages.store.relabelled import cell
from stages.tables.blocks import Block
from stages.tables.detect import Expected
from stages.tables.encoding import encoding_name
from stages.tables.files import files_at, local_copy
from stages.tables.reader import Table, open_table
from stages.tables.remarks import Remarks
from stages.tables.rows import Row, excerpt, is_utf8, place

BATCH_ROWS = 1 << 15
# Rejected rows that an error names, and the characters of each that it shows.
NAMED, SHOWN = 3, 60
# Rejected rows that are remembered: more are counted only.
REMEMBERED = 10_000


class Rejected(NamedTuple):
    """A rejected row: its file, row and line, the reason, and its beginning."""

    file: str
    number: int
    line: int | None
    reason: str
    excerpt: str

    @property
    def place(self) -> str:
        """Where it is."""
        return place(self.file, self.number, self.line)


@dataclass(frozen=True)
class Places:
    """Where each of n rows comes from: `files` by name, and arrays (n,) of the index of the file, the row and the line."""

    files: Sequence[str]
    file: np.ndarray
    number: np.ndarray
    line: np.ndarray

    def of(self, row: int) -> str:
        """The place of a row of the table (from 0) in words, such as "a.csv: row 31 (line 32)"."""
        line = int(self.line[row])
        return place(self.files[int(self.file[row])], int(self.number[row]), line if line else None)


@dataclass
class Read:
    """What was read.

    table : the wanted columns as text. records_of_files : rows with the rejected ones. dialects : of each file, in words.
    lines : of all texts; None if a file has none. rejected_by_reason counts all of them, `rejected` holds the first.
    """

    table: pa.Table
    places: Places
    records_of_files: list[int]
    lines: int | None
    dialects: list[str]
    rejected: list[Rejected]
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def records(self) -> int:
        """Rows of all files, with the rejected ones."""
        return sum(self.records_of_files)

    @property
    def located(self) -> pa.Table:
        """The table with a column `place`, which `place_of` reads and which survives filters and concatenation."""
        at = self.places
        files = pa.DictionaryArray.from_arrays(pa.array(at.file.astype(np.int32)), pa.array(at.files, pa.string()))
        columns = [files, pa.array(at.number), pa.array(at.line)]
        return self.table.append_column("place", pa.StructArray.from_arrays(columns, ["file", "row", "line"]))


def place_of(table: pa.Table, row: int, served_by: str) -> str:
    """The place of a row (from 0) of a table in words; a table from elsewhere has no column `place`, and counts its rows."""
    if "place" not in table.column_names:
        return place(served_by, row + 1, None)
    found = table["place"][row].as_py()
    return place(found["file"], found["row"], found["line"] or None)


def kind_of(reason: str) -> str:
    """A reason without what differs between rows.

    >>> kind_of("malformed csv: 4 fields, expected 3"), kind_of("the column 'text' is not valid UTF-8")
    ('malformed csv', "the column 'text' is not valid UTF-8")
    """
    return reason.partition(":")[0]


def malformed(values: Sequence[str | None], names: Sequence[str], encoding: str) -> str | None:
    """Why the values of a row are no text; None if they are."""
    for name, value in zip(names, values, strict=True):
        if value is not None and "\0" in value:
            return f"the column {name!r} has a NUL character"
        if value is not None and not is_utf8(value):
            return f"the column {name!r} is not valid {encoding_name(encoding)}"
    return None


def batches(parts: Iterable[Row | Block]) -> Iterator[list[Row] | Block]:
    """The rows in lists of limited size, and the blocks between them."""
    batch: list[Row] = []
    for part in parts:
        if isinstance(part, Row):
            batch.append(part)
        if batch and (isinstance(part, Block) or len(batch) == BATCH_ROWS):
            yield batch
            batch = []
        if isinstance(part, Block):
            yield part
    if batch:
        yield batch


def is_clean(columns: Sequence[pa.Array]) -> bool:
    """Whether no text has a NUL character."""
    return not any(pc.any(pc.match_substring(column, "\0")).as_py() for column in columns)


def as_arrays(batch: Sequence[Row], names: Sequence[str]) -> list[pa.Array] | None:
    """The values of rows as arrays; None if a value is no valid text."""
    try:
        arrays = [pa.array(column, pa.large_string()) for column in zip(*(row.values for row in batch), strict=True)]
    except (UnicodeEncodeError, pa.ArrowInvalid):
        return None
    arrays = arrays or [pa.array([], pa.large_string()) for _ in names]
    return arrays if is_clean(arrays) else None


@dataclass
class Collector:
    """Collects rows of several files."""

    names: Sequence[str]
    files: list[str] = field(default_factory=list)
    parts: list[tuple[Sequence[pa.Array], np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    records: list[int] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)

    def reject(self, source: str, row: Row, reason: str, content: str) -> None:
        """Count a rejected row, and remember it if it is among the first."""
        self.reasons[kind_of(reason)] += 1
        if len(self.rejected) < REMEMBERED:
            self.rejected.append(Rejected(source, row.number, row.line, reason, excerpt(content)))

    def add(self, table: Table) -> None:
        """Collect the rows of a file."""
        at = len(self.files)
        self.files.append(table.source)
        self.records.append(0)
        for batch in batches(table.parts()):
            self.records[at] += len(batch)
            if isinstance(batch, Block):
                count = np.arange(len(batch))
                file = np.full(len(batch), at, np.int32)
                self.parts.append((batch.columns, file, batch.number + count, batch.line + count))
                continue
            arrays = as_arrays([row for row in batch if row.reason is None], self.names)
            valid = arrays is not None
            good = [row for row in batch if not self.rejected_row(table, row, valid=valid)]
            if not valid:
                arrays = as_arrays(good, self.names)
            numbers = np.fromiter((row.number for row in good), np.int64, len(good))
            lines = np.fromiter((row.line or 0 for row in good), np.int64, len(good))
            self.parts.append((arrays or [], np.full(len(good), at, np.int32), numbers, lines))
        self.remarks.of_file(table.remarks, table.source)

    def rejected_row(self, table: Table, row: Row, *, valid: bool) -> bool:
        """Reject a malformed row, or one whose values are no `valid` text; whether it was."""
        reason, content = row.reason, row.excerpt
        if reason is None and not valid:
            reason = malformed(row.values, self.names, table.dialect.encoding)
            # The text of a message is its longest value.
            content = max((value or "" for value in row.values), key=len)
        if reason is not None:
            self.reject(table.source, row, reason, content)
        return reason is not None

    def table(self) -> pa.Table:
        """The collected rows; each column is one chunk."""
        columns = {
            name: pa.concat_arrays([part[0][at] for part in self.parts]) if self.parts else pa.array([], pa.large_string())
            for at, name in enumerate(self.names)
        }
        return pa.table(columns)

    def places(self) -> Places:
        """Where the rows come from."""
        arrays = [
            np.concatenate([part[at] for part in self.parts]) if self.parts else np.empty(0, np.int64) for at in (1, 2, 3)
        ]
        return Places(self.files, *arrays)


def read_training(source: str, expected: Expected, *, rejects: int = 0, sha256: str | None = None) -> Read:
    """The rows of a file, folder, pattern or URL; raises UserError for more than `rejects` rejected rows.

    sha256 : pins the bytes of a single file.
    """
    system, files = files_at(source, "ingest.path" if expected.setting else "")
    if sha256 is not None and len(files) != 1:
        raise UserError(f"{source}: holds {len(files):,} files, but ingest.sha256 pins the bytes of one; remove it")
    expected = replace(expected, several=len(files) > 1)
    collector = Collector(list(expected.wanted), remarks=Remarks(expected.setting))
    dialects, lines = [], []
    for shown, path in files.items():
        with local_copy(system, path, shown) as local:
            if sha256 is not None and (actual := file_sha256(local)) != sha256:
                raise UserError(f"{shown}: sha256 is {actual}, ingest.sha256 pins {sha256}")
            if local.stat().st_size == 0 and len(files) == 1:
                raise UserError(f"{shown}: empty file; expected rows with the columns {', '.join(expected.wanted)}")
            table = open_table(local, shown, expected)
            collector.add(table)
        dialects.append(table.dialect.in_words() if collector.records[-1] or len(files) == 1 else "no rows")
        lines.append(table.total_lines)
    total = None if None in lines else sum(count or 0 for count in lines)
    read = Read(
        collector.table(),
        collector.places(),
        collector.records,
        total,
        dialects,
        collector.rejected,
        dict(collector.reasons),
        collector.remarks,
    )
    if (count := sum(read.rejected_by_reason.values())) > rejects:
        raise too_many(read, count, rejects, advice=bool(expected.setting))
    return read


def too_many(read: Read, count: int, rejects: int, *, advice: bool) -> UserError:
    """The error about rejected rows: it names the first ones, and how to allow or avoid them."""
    first = "; ".join(
        f"{row.place}: {row.reason[: SHOWN * 2]}, {one_line(row.excerpt, SHOWN)!r}" for row in read.rejected[:NAMED]
    )
    more = f" and {count - NAMED:,} more" if count > NAMED else ""
    correct = f"{first}{more}; correct {'it' if count == 1 else 'them'}"
    if not advice:
        return UserError(correct)
    if count == read.records:
        return UserError(f"{correct}, or change ingest.dialect (read as {read.dialects[0]}); no row is left otherwise")
    return UserError(
        f"{correct}, change ingest.dialect (read as {read.dialects[0]}), or set"
        f" ingest.rejects: {count} to leave out {counted(count, 'row')} of {read.records:,} (ingest.rejects is {rejects})"
    )


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Write the rejected rows as csv for a spreadsheet: file, row, line, reason and the beginning of the row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "row", "line", "reason", "beginning"])
        for row in rejected:
            line = "" if row.line is None else row.line
            writer.writerow([cell(row.file), row.number, line, cell(row.reason), cell(row.excerpt)])
