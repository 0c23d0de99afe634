"""Rows of delimited text: csv, tsv and their relatives; a malformed row affects no other row.

The rules about quotes are in the manual (Own data): a quoted field may contain delimiters and line ends; a quote that opens a
field and is never closed properly is data; lines that a stray quote has swallowed are rows of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow.compute as pc

from ballast.io.printable import counted
from stages.tables.blocks import BYTE_ORDER_MARK, Block, Splitter, splittable
from stages.tables.dialect import Dialect
from stages.tables.lines import LONGEST_LINE, TOO_LONG, Lines, LongLine
from stages.tables.remarks import DIVIDED, MISSING, NULL, SPANNING, STRAY, Remarks
from stages.tables.rows import Row, picker
from stages.tables.stray_quotes import fields_of, lenient_fields, shielded, swallowed, unshielded


class Record(NamedTuple):
    """A record of delimited text.

    line : on which it begins. fields : none if it is malformed. reason : why it is malformed; None if it is not.
    divided : lines between its quotes that are rows of their own, with its own line, without those that were counted before.
    """

    line: int
    fields: list[str]
    reason: str | None = None
    divided: int = 0


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


def records(lines: Lines, dialect: Dialect, count: int = 0) -> Iterator[Record]:
    """The records of a file, with the malformed ones.

    count : the number of fields of a record, by which lines that a stray quote has swallowed are found; 0 if it is unknown.
    """
    parser = parser_of(lines, dialect)
    backslash = dialect.quote is not None and dialect.escape == "backslash"
    taken, counted_to = lines.taken, 0
    while True:
        taken.clear()
        line, divided = lines.number + 1, 0
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
        if reason is None and len(taken) > 1 and count > 1 and swallowed(taken, count, dialect):
            divided = lines.number - max(line - 1, counted_to)
            counted_to = max(counted_to, lines.number)
        if reason is not None or divided:
            first = lines.all_but_first_again()
            if reason != TOO_LONG:
                lenient = fields_of(first, dialect)
                # The row itself may still be whole: its quote is data.
                if reason is None or (count and len(lenient) == count):
                    fields, reason = lenient, None
        # Blank lines are not rows, as in pyarrow and pandas.
        elif not fields:
            continue
        if backslash:
            fields = [unshielded(field, dialect.quote or '"') for field in fields]
        yield Record(line, fields, reason, divided)


def delimited_parts(lines: Lines, dialect: Dialect, wanted: Sequence[str], remarks: Remarks) -> Iterator[Row | Block]:
    """The rows of a delimited file in order: blocks of them where no rule of this module applies, else one at a time."""
    found = records(lines, dialect, len(dialect.columns))
    split = Splitter(dialect, wanted) if splittable(dialect) else None
    pick = picker([dialect.columns.index(name) for name in wanted])
    number = 0
    if dialect.stray is not None:
        remarks.add(STRAY, f"line {dialect.stray[1]}", dialect.stray[0])
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
        if record.divided:
            remarks.add(DIVIDED, f"line {record.line}", record.divided)
        row = row_of(number, record, lines, pick, dialect)
        if len(lines.taken) > 1:
            remarks.add(SPANNING, f"line {row.line}")
        if None in row.values:
            remarks.add(MISSING, f"line {row.line}", row.values.count(None))
        yield row


def row_of(
    number: int,
    record: Record,
    lines: Lines,
    pick: Callable[[Sequence[str | None]], Any],
    dialect: Dialect,
) -> Row:
    """The row of a record; rejected if the record is malformed, has not one field for each column, or repeats the header."""
    line, fields, reason, _ = record
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
