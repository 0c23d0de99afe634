"""Whether quotes are data and how they are escaped, by the whole of a file of delimited text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from stages.tables.delimited import records
from stages.tables.dialect import Dialect, Escape
from stages.tables.lines import Lines, LongLine, binary_file, text_file
from stages.tables.stray_quotes import swallowed, telling_columns

SCAN_BYTES = 1 << 20
# Faults after which a file is not read on.
MOST_FAULTS = 500


def lines_of(path: Path, dialect: Dialect) -> Lines:
    """The lines of a file, without a line `sep=;` before the header."""
    file = text_file(binary_file(path, dialect.compression), dialect.newline, dialect.encoding)
    lines = Lines(file, newline=dialect.newline)
    if dialect.preamble:
        next((line for line in lines if line.strip()), None)
    return lines


def header_and_rows_are_quoted(sample: Sequence[str], rows: int, header: Sequence[str], dialect: Dialect) -> bool:
    """Whether each name of the header is in quotes, and the rows have enough quotes for a quoted field in half of them."""
    quote = dialect.quote
    if quote is None or sample[0].rstrip("\r\n") != dialect.delimiter.join(f"{quote}{name}{quote}" for name in header):
        return False
    return sum(line.count(quote) for line in sample[1:]) >= rows


def is_as_written(sample: Sequence[str], found: Sequence[Sequence[str]], dialect: Dialect) -> bool:
    """Whether a program that doubles quotes within quotes wrote the first lines, so that it leaves no stray ones.

    found : the records of the lines. The last one may be cut off.
    """
    whole = found if found and found[-1] else found[:-1]
    if dialect.quote is None or not any(dialect.quote in field for fields in whole for field in fields):
        return False
    written = io.StringIO(newline="")
    ending = "\r\n" if sample[0].endswith("\r\n") else "\n"
    csv.writer(written, delimiter=dialect.delimiter, quotechar=dialect.quote, lineterminator=ending).writerows(whole)
    return "".join(sample).startswith(written.getvalue())


def contains(path: Path, dialect: Dialect, text: str) -> bool:
    """Whether a text file contains some characters."""
    with text_file(binary_file(path, dialect.compression), "\n", dialect.encoding) as file:
        before = ""
        while chunk := file.read(SCAN_BYTES):
            if text in before + chunk:
                return True
            before = chunk[-len(text) :]
    return False


def faults(path: Path, dialect: Dialect) -> Iterator[int]:
    """The line of each record that shows that a dialect does not fit: malformed, or spanning lines that look like rows."""
    lines, count = lines_of(path, dialect), len(dialect.columns)
    with lines.file:
        for line, fields, reason, _ in records(lines, dialect):
            if reason or (fields and len(fields) != count) or (len(lines.taken) > 1 and swallowed(lines.taken, count, dialect)):
                yield line


def detect_escape(path: Path, dialect: Dialect) -> Escape:
    """How quotes are escaped: by a backslash if the file has backslashes before quotes, and fewer faults that way."""
    quote = dialect.quote or '"'
    if not contains(path, dialect, "\\" + quote):
        return "double"
    doubled = sum(1 for _ in islice(faults(path, dialect), MOST_FAULTS))
    backslash = sum(1 for _ in islice(faults(path, replace(dialect, escape="backslash")), MOST_FAULTS))
    return "backslash" if backslash < doubled else "double"


def stray_quotes(path: Path, dialect: Dialect) -> tuple[int, int] | None:
    """How many quotes open a field and do not close it, and the line of the first, if this shows that quotes are data.

    Every line is a row if they are, and most quotes that open a field do not close it.
    """
    count, quote = len(dialect.columns), dialect.quote or '"'
    if count < 2 or dialect.quotes_enclose or not contains(path, dialect, quote):
        return None
    lines, closed, stray, first = lines_of(path, dialect), 0, 0, 0
    with lines.file:
        try:
            for line in lines:
                fields = line.rstrip("\r\n").split(dialect.delimiter)
                if len(fields) != count and line.strip("\r\n"):
                    return None
                if quote in line:
                    opened = [field[1:] for field in fields if field.startswith(quote)]
                    whole = sum(field.endswith(quote) and quote not in field[:-1].replace(quote * 2, "") for field in opened)
                    closed, stray = closed + whole, stray + len(opened) - whole
                    first = first or (lines.number if stray else 0)
                lines.taken.clear()
        except LongLine:
            return None
    return (stray, first) if stray >= max(1, closed) and not has_long_text(path, dialect) else None


def has_long_text(path: Path, dialect: Dialect) -> bool:
    """Whether a quoted field spans lines that cannot be rows."""
    lines, count = lines_of(path, dialect), len(dialect.columns)
    with lines.file:
        return any(
            record.reason is None and len(lines.taken) > 1 and telling_columns(lines.taken, count, dialect) is None
            for record in records(lines, dialect)
        )
