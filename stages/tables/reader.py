"""Read the rows of one file: what it holds is detected, and all rows are given, the rejected ones too."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ballast.exceptions import UserError
from stages.store.places import error_text
from stages.tables.blocks import Block
from stages.tables.delimited import delimited_parts
from stages.tables.detect import Expected, detect
from stages.tables.detect_quotes import lines_of
from stages.tables.dialect import Dialect, format_of_name
from stages.tables.excel import excel_rows
from stages.tables.json_rows import Keys, json_lines, json_values
from stages.tables.lines import Lines, binary_file, text_file
from stages.tables.parquet_rows import parquet_rows
from stages.tables.remarks import Remarks
from stages.tables.rows import Row, check_columns

# What the libraries raise for damaged files. ValueError: among others wrong digests.
DAMAGED = (OSError, EOFError, ValueError, KeyError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)


@dataclass
class Table:
    """A file that is being read.

    source : its name in errors.
    several : whether the file is one of several: then an empty one has no rows, and alone it lacks its columns.
    lines : what counts the lines of a text; `total_lines` is their number after the last row was read.
    remarks : what was counted, complete after the last row was read.
    """

    source: str
    path: Path
    dialect: Dialect
    wanted: Mapping[str, str]
    setting: str
    several: bool = False
    lines: Lines | None = field(default=None, init=False)
    remarks: Remarks = field(init=False)

    def __post_init__(self) -> None:
        self.remarks = Remarks(self.setting)

    @property
    def total_lines(self) -> int | None:
        """The number of lines of a text; None for other formats."""
        return None if self.lines is None else self.lines.number

    def rows(self) -> Iterator[Row]:
        """All rows in order; raises UserError for a missing column, and for a damaged file."""
        for part in self.parts():
            if isinstance(part, Block):
                yield from part.rows()
            else:
                yield part

    def parts(self) -> Iterator[Row | Block]:
        """The same rows, of csv in whole blocks where possible."""
        with damage_as_user_error(self.source, self.dialect.format):
            yield from self._parts()

    def _parts(self) -> Iterator[Row | Block]:
        dialect, names = self.dialect, list(self.wanted)
        if dialect.format == "parquet":
            yield from parquet_rows(self.path, self.source, self.wanted)
        elif dialect.format == "xlsx":
            yield from excel_rows(self.path, self.source, self.wanted)
        elif dialect.format == "json" and dialect.array:
            with text_file(binary_file(self.path, dialect.compression), "\n", dialect.encoding) as file:
                yield from json_values(file, self.source, Keys(self.source, self.wanted), names)
        else:
            if dialect.format == "csv" and not (self.several and self.is_empty()):
                check_columns(self.source, dialect.columns, self.wanted, self.hint())
            self.lines = lines_of(self.path, dialect)
            with self.lines.file:
                if dialect.format == "csv":
                    yield from delimited_parts(self.lines, dialect, names, self.remarks) if dialect.columns else ()
                else:
                    yield from json_lines(self.lines, Keys(self.source, self.wanted), names)

    def is_empty(self) -> bool:
        """Whether a text has no character."""
        with binary_file(self.path, self.dialect.compression) as file:
            return file.read(1) == b""

    def hint(self) -> str:
        """The end of an error about a missing column, if none of the columns is there."""
        if set(self.wanted) & set(self.dialect.columns):
            return ""
        if words := disguised(self.dialect.columns[0] if self.dialect.columns else "", self.setting):
            return words
        if not self.dialect.header:
            return "; without a header, the columns are named column1, column2, ..."
        if not self.setting:
            return ""
        words = f"; if the file has no header, set {self.setting}.header: false and name the columns column1, column2, ..."
        return words if len(self.dialect.columns) > 1 else f"{words}; {self.setting}.delimiter sets the delimiter"


def disguised(first: str, setting: str) -> str:
    """The end of an error about text that is no table, by the first field of its header; empty if it looks like one.

    >>> disguised("<!DOCTYPE html>", "ingest.dialect")
    '; it looks like a web page, such as an error page of a server: download the file again'
    """
    if first.lstrip().startswith(("{", "[")):
        named = ", or set ingest.source: json" if setting.startswith("ingest.") else ""
        return f"; it looks like JSON: rename it to end in .json{named}"
    if first.lstrip().startswith("<"):
        return "; it looks like a web page, such as an error page of a server: download the file again"
    if first.startswith("version https://git-lfs"):
        return "; it is a pointer of Git LFS: `git lfs pull` replaces it by the file"
    return ""


@contextmanager
def damage_as_user_error(source: str, format_name: str) -> Iterator[None]:
    """Raise UserError for errors of a damaged file."""
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"{source}: cannot be read as {format_name}: {error_text(error)}") from error
    except LookupError as error:
        raise UserError(f"{source}: {error_text(error)}; expected an encoding that Python knows, such as cp1252") from error


def open_table(path: Path, source: str, expected: Expected) -> Table:
    """A local file with its dialect; `source` is the name that errors show. Raises UserError."""
    with damage_as_user_error(source, format_of_name(source) or expected.source):
        return Table(source, path, detect(path, source, expected), expected.wanted, expected.setting, expected.several)
