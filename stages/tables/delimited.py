"""Rows of delimited text: csv, tsv and their relatives; a malformed row affects no other row.

The rules about quotes are in the manual (Own data): a quoted field may contain delimiters and line ends; a quote that opens a
field and is never closed properly is data; lines that a stray quote has swallowed are rows of their own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow.compute as pc

from ballast.io.printable import counted
from stages.tables.blocks import BYTE_ORDER_MARK, Block, Splitter, splittable
from stages.tables.dialect import Dialect
from stages.tables.lines import LONGEST_LINE, TOO_LONG, Lines, LongLine
from stages.tables.remarks import MISSING, NULL, SPANNING, Remarks
from stages.tables.rows import Row, picker

# Stand for an escaped quote and an escaped backslash while a line is parsed: lone surrogates, which no decoder gives.
QUOTE_MARK, BACKSLASH_MARK = "\ud800", "\ud801"
ESCAPED = re.compile(r'\\(["\'\\])')
# A longer line with a stray quote is rejected, so that the time stays linear.
LONGEST_LENIENT = 1 << 20
# How many unquoted delimiters beyond the first line's must be at the right places, before lines that a quoted field spans
# count as rows. Texts contain commas often, tabs hardly ever.
EVIDENCE = {",": 6, ";": 4, "|": 2}


def shielded(line: str, quote: str) -> str:
    """A line whose escaped quotes and backslashes are replaced by marks."""
    if "\\" not in line:
        return line
    return ESCAPED.sub(
        lambda match: BACKSLASH_MARK if match[1] == "\\" else QUOTE_MARK if match[1] == quote else match[0], line
    )


def unshielded(field: str, quote: str) -> str:
    """A field with its quotes and backslashes instead of the marks."""
    return field.replace(QUOTE_MARK, quote).replace(BACKSLASH_MARK, "\\")


def lenient_fields(line: str, dialect: Dialect) -> list[str]:
    r"""The fields of one line in which a quote that is not closed properly is data.

    >>> lenient_fields('1,"never closed,"a, b"', Dialect(format="csv"))
    ['1', '"never closed', 'a, b']
    """
    line = line.rstrip("\r\n")
    if len(line) > LONGEST_LENIENT:
        return []
    delimiter, quote = dialect.delimiter, dialect.quote
    if quote is None:
        return line.split(delimiter)
    d, q = re.escape(delimiter), re.escape(quote)
    pattern = re.compile(rf"{q}((?:[^{q}]|{q}{q})*+){q}(?={d}|\Z)|([^{d}]*)", re.DOTALL)
    fields, at = [], 0
    while (match := pattern.match(line, at)) is not None:
        fields.append(match[2] if match[1] is None else match[1].replace(quote * 2, quote))
        at = match.end()
        if at >= len(line):
            break
        at += 1
    return fields


def swallowed(lines: Sequence[str | LongLine], count: int, dialect: Dialect) -> bool:
    """Whether the lines that one record of `count` fields spans are rows of their own, which a stray quote has swallowed."""
    if dialect.quoted_header:
        return False
    parts = [lenient_fields(line, dialect) if isinstance(line, str) else [] for line in lines]
    if any(len(fields) != count for fields in parts):
        return False
    if any(fields[at] in values for at, values in dialect.categories for fields in parts[:-1]):
        # A column of a handful of values, such as the label, tells rows from lines of a text.
        return all(fields[at] in values for at, values in dialect.categories for fields in parts)
    return (len(lines) - 1) * (count - 1) >= EVIDENCE.get(dialect.delimiter, 1)


def parser_of(lines: Lines, dialect: Dialect) -> Iterator[list[str]]:
    """The csv parser of a dialect. It is strict: a quote that is not closed properly is an error."""
    csv.field_size_limit(LONGEST_LINE)
    quote = dialect.quote
    source: Iterator[str] = lines
    if quote is not None and dialect.escape == "backslash":
        # A generator would end with the first line that is too long; this goes on.
        source = map(partial(shielded, quote=quote), lines)
    return csv.reader(
        source,
        delimiter=dialect.delimiter,
        quotechar=quote or '"',
        quoting=csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
        strict=True,
    )


def records(lines: Lines, dialect: Dialect, count: int = 0) -> Iterator[tuple[int, list[str], str | None]]:
    """The records of a file: the line on which each begins, its fields, and why it is malformed (without fields) or None.

    count : the number of fields of a record, by which lines that a stray quote has swallowed are found; 0 if it is unknown.
    """
    parser = parser_of(lines, dialect)
    backslash = dialect.quote is not None and dialect.escape == "backslash"
    taken = lines.taken
    while True:
        taken.clear()
        line = lines.number + 1
        reason: str | None = None
        try:
            fields = next(parser, None)
        except LongLine:
            fields = []
            reason = TOO_LONG if isinstance(taken[0], LongLine) else "malformed csv: a quote is not closed"
        except csv.Error as error:
            fields, reason = [], f"malformed csv: {error}"
        if fields is None:
            return
        if reason is not None or (len(taken) > 1 and count > 1 and swallowed(taken, count, dialect)):
            first = lines.all_but_first_again()
            if reason != TOO_LONG:
                lenient = lenient_fields(shielded(first, dialect.quote or '"') if backslash else first, dialect)
                # The row itself may still be whole: its quote is data.
                if reason is None or (count and len(lenient) == count):
                    fields, reason = lenient, None
        # Blank lines are not rows, as in pyarrow and pandas.
        elif not fields:
            continue
        if backslash:
            fields = [unshielded(field, dialect.quote or '"') for field in fields]
        yield line, fields, reason


def delimited_parts(lines: Lines, dialect: Dialect, wanted: Sequence[str], remarks: Remarks) -> Iterator[Row | Block]:
    """The rows of a delimited file in order: blocks of them where no rule of this module applies, else one at a time."""
    found = records(lines, dialect, len(dialect.columns))
    split = Splitter(dialect, wanted) if splittable(dialect) else None
    pick = picker([dialect.columns.index(name) for name in wanted])
    number = 0
    if dialect.header:
        next(found, None)
    while True:
        if split is not None and not lines.again:
            text = lines.block()
            if (columns := split(text)) is not None:
                block = Block(number + 1, lines.number + 1, columns)
                for column in filter(lambda column: column.null_count, columns):
                    first = pc.index(pc.is_null(column), True).as_py()
                    remarks.add(MISSING, f"line {block.line + first}", column.null_count)
                number += len(block)
                lines.number += len(block)
                yield block
                continue
            lines.by_line(text)
        record = next(found, None)
        if record is None:
            return
        number += 1
        row = row_of(number, record, lines, pick, dialect)
        if len(lines.taken) > 1:
            remarks.add(SPANNING, f"line {row.line}")
        if None in row.values:
            remarks.add(MISSING, f"line {row.line}", row.values.count(None))
        yield row


def row_of(
    number: int,
    record: tuple[int, list[str], str | None],
    lines: Lines,
    pick: Callable[[Sequence[str | None]], Any],
    dialect: Dialect,
) -> Row:
    """The row of a record; rejected if the record is malformed, has not one field for each column, or repeats the header."""
    line, fields, reason = record
    count = len(dialect.columns)
    if reason is None and len(fields) > count and not any(fields[count:]):
        # A spreadsheet writes empty fields after the last column.
        fields = fields[:count]
    if reason is None and len(fields) != count:
        reason = f"malformed csv: {counted(len(fields), 'field')}, expected {count}"
    if reason is None and dialect.header and repeats_header(fields, str(lines.taken[0]), dialect):
        reason = "the row repeats the header"
    if reason is None:
        return Row(number, line, pick([None if field == NULL else field for field in fields]))
    return Row(number, line, (), reason, "".join(map(str, lines.taken)))


def repeats_header(fields: Sequence[str], line: str, dialect: Dialect) -> bool:
    """Whether the fields of a line are the names of the columns, as where one file was appended to another with its mark."""
    if line.startswith(BYTE_ORDER_MARK):
        fields = lenient_fields(line.removeprefix(BYTE_ORDER_MARK), dialect)
    return tuple(fields) == dialect.columns
