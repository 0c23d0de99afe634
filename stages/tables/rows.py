"""Rows of a table as the readers of all formats give them, and the columns that a caller wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ballast.exceptions import UserError, suggestion
from ballast.io.printable import printable

# Characters that errors, quarantine and data/rejected.csv show of a row, and of the names of columns.
EXCERPT, SHOWN_NAMES = 200, 200
# A name of a column, as spreadsheets and exports have none: column1, column2, ...
UNNAMED = "column"


class Row(NamedTuple):
    """A record of a file.

    number : counts the records of the file from 1, without the header; rejected ones count too.
    line : the line on which it begins (of a spreadsheet, the row of the sheet); None for parquet.
    values : the wanted columns as text; None is a missing value. Empty if the row is rejected.
    reason : why the row is rejected; None if it is not.
    excerpt : the beginning of a rejected row.
    """

    number: int
    line: int | None
    values: Sequence[str | None]
    reason: str | None = None
    excerpt: str = ""


def place(source: str, number: int, line: int | None) -> str:
    """Where a row is, in the words of every error.

    >>> place("a.csv", 31, 32), place("a.parquet", 31, None)
    ('a.csv: row 31 (line 32)', 'a.parquet: row 31')
    """
    return f"{source}: row {number}" + ("" if line is None else f" (line {line})")


def excerpt(value: Any) -> str:
    """The beginning of a value, in characters that can be encoded."""
    return str(value)[:EXCERPT].encode("utf-8", "backslashreplace").decode()


def is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates, which stand for bytes that could not be decoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def picker(at: Sequence[int]) -> Callable[[Sequence[str | None]], Sequence[str | None]]:
    """A function that takes the fields at some positions of a record."""
    if len(at) == 1:
        position = at[0]
        return lambda fields: (fields[position],)
    return itemgetter(*at)


def missing_column(source: str, name: str, setting: str, present: Sequence[str], hint: str = "") -> UserError:
    """The error of a table that lacks a column; it shows at most SHOWN_NAMES characters of the names."""
    if not present:
        return UserError(f"{source}: no column {name!r} ({setting}): it is empty")
    readable = [column for column in present if is_utf8(column)]
    words = printable(suggestion(name, readable))
    if len(words) > SHOWN_NAMES:
        shown = printable(", ".join(readable))[: SHOWN_NAMES - 50]
        words = f"{words.partition('known: ')[0][:SHOWN_NAMES]}known: {shown}... ({len(present):,} columns)"
    return UserError(f"{source}: no column {name!r} ({setting}): {words}{hint}")


def check_columns(source: str, present: Sequence[str], wanted: Mapping[str, str], hint: str = "") -> None:
    """Raise UserError for a wanted column (name -> the setting that names it) that is missing or occurs twice."""
    for name, setting in wanted.items():
        if name not in present:
            raise missing_column(source, name, setting, present, hint)
        if present.count(name) > 1:
            raise UserError(f"{source}: more than one column {name!r} ({setting}); rename one of them")
