"""Read production messages row by row from local or remote files, with the reader of the training data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.production.rows import Columns, Row
from stages.store.data_sections import DialectSettings
from stages.tables.detect import Expected
from stages.tables.files import files_at, local_copy
from stages.tables.reader import open_table

SETTING = "production.score.dialect"


def read_rows(source: str, columns: Columns, dialect: DialectSettings | None = None) -> Iterator[Row]:
    """The rows of a file, or of all files of a folder or pattern in the order of their names, at a path or URL.

    Raises UserError for a source that is missing, has no file, cannot be read or lacks a column.
    """
    system, files = files_at(source)
    for name, path in files.items():
        yield from read_rows_of_file(system, name, path, columns, dialect, several=len(files) > 1)


def read_rows_of_file(
    system: Any, name: str, path: str, columns: Columns, dialect: DialectSettings | None = None, *, several: bool = False
) -> Iterator[Row]:
    """The rows of a file of a file system; `name` is what errors show. Raises UserError.

    several : whether it is one of several files; an empty one then has no rows.
    """
    with local_copy(system, path, name) as local:
        yield from local_rows(local, name, columns, dialect, tell=True, several=several)


def local_rows(
    local: Path, name: str, columns: Columns, dialect: DialectSettings | None, *, tell: bool, several: bool = False
) -> Iterator[Row]:
    """The rows of a local file, see `read_rows_of_file`; `tell` prints the dialect that was detected.

    What the reader remarks is always printed.
    """
    expected = Expected(wanted=columns.wanted, dialect=dialect or DialectSettings(), setting=SETTING, several=several)
    table = open_table(local, name, expected)
    if tell:
        print(f"score: {name}: {table.dialect.in_words()}", file=sys.stderr)
    for row in table.rows():
        if row.reason is not None:
            yield Row(name, row.number, None, row.excerpt, row.reason, row.line)
        else:
            text, id_ = row.values[0], row.number if columns.id is None else row.values[-1]
            yield Row(name, row.number, id_, text, None, row.line)
    for words in table.remarks.in_words():
        print(f"score: {name}: {words}", file=sys.stderr)
