"""Reading production messages row by row from files here or elsewhere, so that a malformed row costs no other row.

The tables that are trained on are read as a whole by `stages.store.tables`, where a malformed row is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError, is_transient, suggestion, user_error
from ballast.io.paths import check_source
from ballast.io.urls import file_path, public_url
from stages.store.ids import EXACT, SPELT, malformed_number
from stages.store.places import file_system, is_url, one_line
from stages.store.tables import FORMATS

# Characters of a line, and of a field, beyond which memory is not spent on it.
LONGEST_LINE = 1 << 24
# Read ahead of a file elsewhere; s3fs's own 50 MB would be most of our memory.
BLOCK_BYTES = 1 << 22
PARQUET_ROWS = 1000
# Names that are remembered to tell which one was meant.
KNOWN_NAMES = 100
EXCERPT = 200
TOO_LONG = f"the line is longer than {LONGEST_LINE:,} characters"
PLAIN = (str, int, float)


class Row(NamedTuple):
    """A message as it was found: `number` counts the rows of its source from 1; with a `reason` it is malformed."""

    source: str
    number: int
    id: Any
    text: Any
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns with the text and, unless the row's number is to be the id, with the id; `settings` name their settings."""

    text: str
    id: str | None
    settings: dict[str, str]

    @property
    def wanted(self) -> list[str]:
        return [self.text] if self.id is None else [self.text, self.id]

    def missing(self, source: str, name: str, found: list[str]) -> UserError:
        """The error of a source without a column."""
        return UserError(
            f"{source}: no column {name!r} ({self.settings[name]}): {suggestion(name, found) if found else 'it is empty'}"
        )

    def check(self, source: str, found: list[str]) -> None:
        """Raise UserError for a column that a source lacks or has twice."""
        for name in self.wanted:
            if name not in found:
                raise self.missing(source, name, found)
            if found.count(name) > 1:
                raise UserError(f"{source}: more than one column {name!r} ({self.settings[name]})")


def read_rows(source: str, columns: Columns) -> Iterator[Row]:
    """The rows of a file, or of all files of a folder in the order of their names, at a path or URL.

    Files of a folder whose names begin with a dot or an underscore are no data. Raises UserError for a source that is missing,
    holds no file, cannot be read or lacks a column.
    """
    system, files = files_at(source)
    for name, path in files.items():
        yield from read_file(system, name, path, columns)


def files_at(source: str) -> tuple[Any, dict[str, str]]:
    """The file system of a path or URL, and its files: name to show -> path. Raises UserError, also for an unknown format.

    A FIFO or device among the files of a folder here would be read without end, and is an error.
    """
    shown = public_url(source)
    if not is_url(source):
        check_source(Path(source))
    try:
        system, root = file_system(source)
        system.invalidate_cache()
        # By HTTP a name is all that tells a file from a page with links.
        named = urlsplit(source).scheme in ("http", "https") and ending_of(source) in FORMATS
        files = {shown: root} if named or system.isfile(root) else files_of(system, shown, root)
        if not files:
            # Which finds nothing too where the storage does not answer.
            system.info(root)
    except UserError:
        raise
    # Each kind of storage has errors of its own.
    except Exception as error:
        if not isinstance(error, FileNotFoundError) or is_transient(error):
            raise user_error(f"{shown}: cannot be read: {one_line(error)}", error) from error
        files = {}
    if not files:
        raise UserError(f"{shown}: no such file, and no folder with files in it")
    for name, path in files.items():
        format_of(name)
        if isinstance(system, LocalFileSystem):
            check_source(Path(path))
    return system, files


def read_file(system: Any, name: str, path: str, columns: Columns) -> Iterator[Row]:
    """The rows of a file at a path of a file system, under the name that errors show; raises UserError."""
    readers: dict[str, Callable[[str, Any, Columns], Iterator[Row]]] = {
        "csv": partial(read_csv, delimiter=","),
        "tsv": partial(read_csv, delimiter="\t"),
        "jsonl": read_jsonl,
        "parquet": read_parquet,
    }
    try:
        with system.open(path, "rb", block_size=BLOCK_BYTES) as file:
            yield from readers[format_of(name)](name, file, columns)
    except UserError:
        raise
    except Exception as error:
        raise user_error(f"{name}: cannot be read: {one_line(error)}", error) from error


def files_of(system: Any, source: str, root: str) -> dict[str, str]:
    """The files of a folder, but for hidden ones: name to show -> path."""
    root = root.rstrip("/")
    inside = {path.removeprefix(root).lstrip("/"): path for path in sorted(system.find(root))}
    return {
        f"{source.rstrip('/')}/{name}": path
        for name, path in inside.items()
        if name and not name.endswith("/") and not any(part.startswith((".", "_")) for part in name.split("/"))
    }


def ending_of(name: str) -> str:
    """The ending of a file's name, of a path or URL."""
    return PurePosixPath(file_path(name)).suffix.lower()


def format_of(name: str) -> str:
    """The format that a file's ending tells; raises UserError."""
    endings = [PurePosixPath(path).suffix.lower() for path in (name, file_path(name))]
    known = [ending for ending in endings if ending in FORMATS]
    if not known:
        raise UserError(f"{name}: cannot tell the format by the ending {endings[-1]!r}; expected {', '.join(FORMATS)}")
    return FORMATS[known[0]]


class LongLine(Exception):  # noqa: N818
    """Stands for a line that is too long to be kept; it holds how the line begins."""


@dataclass
class Lines:
    """The lines of a file, of which those `taken` for a record that turns out malformed can be read `again`.

    A line longer than LONGEST_LINE is skipped, and raised as LongLine.
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
        """Put back all lines taken but the first, which is returned."""
        first, *others = self.taken
        self.again.extendleft(reversed(others))
        return str(first)


def read_line(file: io.TextIOBase) -> str | LongLine:
    """The next line with its end, "" at the end of the file; of a line that is too long only its beginning is kept."""
    line = file.readline(LONGEST_LINE)
    if len(line) < LONGEST_LINE or line.endswith("\n"):
        return line
    while (more := file.readline(LONGEST_LINE)) and not more.endswith("\n"):
        pass
    return LongLine(line[:EXCERPT])


def text_file(file: Any, newline: str) -> io.TextIOWrapper:
    """A binary file as text; bytes that are not UTF-8 become lone surrogates, which `malformed` finds."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def read_csv(source: str, file: Any, columns: Columns, *, delimiter: str) -> Iterator[Row]:
    """Rows of a delimited file with a header; fields may be quoted and hold line ends.

    A quote that is never closed would swallow the rows after it: only the line it stands in is malformed.
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
        raise UserError(f"{source}: the first line must name the columns, but it cannot be read: {one_line(error)}") from error
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
        # A blank line is no row, as for pyarrow and pandas.
        if not fields:
            continue
        number += 1
        if len(fields) != len(header):
            line = "".join(map(str, lines.taken))
            yield Row(source, number, None, line, f"malformed csv: {len(fields)} fields, expected {len(header)}")
        else:
            yield Row(source, number, number if id_at is None else fields[id_at], fields[text_at])


def read_jsonl(source: str, file: Any, columns: Columns) -> Iterator[Row]:
    """Rows of a file with a JSON object in each line; other columns than the wanted ones may hold anything."""
    with text_file(file, newline="\n") as lines:
        yield from jsonl_rows(source, lines, columns)


def jsonl_rows(source: str, lines: io.TextIOBase, columns: Columns) -> Iterator[Row]:
    """Rows of a file's lines; see `read_jsonl`."""
    # The columns that any row has; the names are those of the first rows only.
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
            yield Row(source, number, None, line, f"invalid JSON: {one_line(error)}")
            continue
        if not isinstance(content, dict):
            yield Row(source, number, None, line, "invalid JSON: not an object")
            continue
        if isinstance(content, Ambiguous) and (again := [name for name in columns.wanted if name in content.again]):
            yield Row(source, number, None, line, f"invalid JSON: the key {again[0]!r} a second time")
            continue
        for name in seen:
            seen[name] = seen[name] or name in content
        if len(names) < KNOWN_NAMES:
            names.update(name[:EXCERPT] for name in list(content)[:KNOWN_NAMES])
        yield Row(source, number, number if columns.id is None else content.get(columns.id), content.get(columns.text))
    if names:
        for name in (name for name, found in seen.items() if not found):
            raise columns.missing(source, name, [each for each in names if is_utf8(each)])


class Ambiguous(dict[str, Any]):
    """An object of JSON with keys that occur `again`; the last value of each is the one that counts."""

    again: frozenset[str] = frozenset()


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its keys and values."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    found = Ambiguous(content)
    counts = Counter(key for key, _ in pairs)
    found.again = frozenset(key for key, count in counts.items() if count > 1)
    return found


def read_parquet(source: str, file: Any, columns: Columns) -> Iterator[Row]:
    """Rows of a parquet file, whose checksums must be right where it has some."""
    digest.check(file, required=False)
    table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True)
    columns.check(source, table.schema_arrow.names)
    number = 0
    for batch in table.iter_batches(PARQUET_ROWS, columns=columns.wanted):
        texts = strings(source, columns.text, batch.column(columns.text))
        if columns.id is None:
            ids: list[Any] = list(range(number + 1, number + 1 + len(texts)))
        else:
            ids = strings(source, columns.id, batch.column(columns.id))
        for id_, text in zip(ids, texts, strict=True):
            number += 1
            yield Row(source, number, id_, text)


def strings(source: str, name: str, column: pa.Array) -> list[str | float | None]:
    """A column's values as text; raises UserError for nested ones. Parquet does not promise that its strings are UTF-8.

    Numbers that are not finite, or too large to have all their digits, stay numbers, which are malformed.
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


def is_utf8(text: str) -> bool:
    """Whether a text can be written: it has no lone surrogates, which also stand for bytes that were not UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def malformed_text(text: Any, longest: int) -> str | None:
    """Why a value is no message, None if it is one."""
    if text is None:
        return "no text"
    if not isinstance(text, str):
        return f"the text is no string but {type(text).__name__}"
    if len(text) > longest:
        return f"the text has {len(text):,} characters, more than {longest:,} (production.score.longest_text)"
    if not text or text.isspace():
        return "the text is blank"
    if "\0" in text:
        return "the text has a NUL character"
    if not is_utf8(text):
        return "the text is not valid UTF-8"
    return None


def malformed_id(value: Any, longest: int) -> str | None:
    """Why a value is no id, None if it is one: a string or a number."""
    if value is None or value == "":
        return "no id"
    if not isinstance(value, PLAIN) or isinstance(value, bool):
        return f"the id is no string but {type(value).__name__}"
    if isinstance(value, str):
        if SPELT.match(value):
            return f"the id is {value.strip()}"
        reason = malformed_text(value, longest)
        return reason and reason.replace("text", "id", 1)
    return malformed_number(value)


def excerpt(value: Any) -> str:
    """The beginning of a value in characters that can be written."""
    return str(value)[:EXCERPT].encode("utf-8", "backslashreplace").decode()
