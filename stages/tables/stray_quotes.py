"""Which lines a stray quote has swallowed: they are rows of their own, and not lines of a quoted field.

The rules are in the manual (Own data).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stages.tables.dialect import Dialect
from stages.tables.lines import LongLine

# Stand for an escaped quote and an escaped backslash while a line is parsed: lone surrogates, which no decoder gives.
QUOTE_MARK, BACKSLASH_MARK = "\ud800", "\ud801"
ESCAPED = re.compile(r'\\(["\'\\])')
# A longer line with a stray quote is rejected, so that the time stays linear.
LONGEST_LENIENT = 1 << 20
# How many unquoted delimiters beyond the first line's must be at the right places, before lines that a quoted field spans
# count as rows where no column tells. Texts contain commas often, tabs hardly ever.
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


def fields_of(line: str | LongLine, dialect: Dialect) -> list[str]:
    """The fields of one line, with marks for escaped quotes; none if it is too long."""
    if isinstance(line, LongLine):
        return []
    return lenient_fields(shielded(line, dialect.quote or '"') if dialect.escape == "backslash" else line, dialect)


def telling_columns(lines: Sequence[str | LongLine], count: int, dialect: Dialect) -> int | None:
    """How many columns tell that the lines that a quoted field spans are rows of their own; None if they are not.

    Each line of rows has `count` fields, and the values of the columns have their form.
    """
    rows = [fields_of(line, dialect) for line in lines]
    if any(len(fields) != count for fields in rows):
        return None
    opened = next((at for at, value in enumerate(rows[0]) if value.startswith(dialect.quote or '"')), 0)
    telling = 0
    for at, form in dialect.forms:
        if at == opened:
            continue
        column = [fields[at] for fields in rows]
        # What is before the quoted field on its first line, or behind it on its last, has the form in any case.
        inside = column if form.counts_up else column[:-1] if at > opened else column[1:]
        if not form.fits(inside):
            return None
        telling += form.tells(inside)
    return telling


def swallowed(lines: Sequence[str | LongLine], count: int, dialect: Dialect) -> bool:
    """Whether the lines that one record of `count` fields spans are rows of their own, which a stray quote has swallowed."""
    if dialect.quotes_enclose or (telling := telling_columns(lines, count, dialect)) is None:
        return False
    return telling > 0 or (len(lines) - 1) * (count - 1) >= EVIDENCE.get(dialect.delimiter, 1)
