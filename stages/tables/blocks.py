"""Whole blocks of delimited text that pyarrow reads exactly as the csv module would: columns instead of a row at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.tables.dialect import NO_DELIMITER, Dialect
from stages.tables.remarks import NULL
from stages.tables.rows import Row

BYTE_ORDER_MARK = "\ufeff"
# Delimits nothing in files of one column: blocks with this character are not split. pyarrow does not take a NUL.
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Block:
    """Consecutive rows; each is one line, and none is rejected.

    number, line : of the first row. columns : the wanted columns, arrays (n,) of text.
    """

    number: int
    line: int
    columns: Sequence[pa.Array]

    def __len__(self) -> int:
        return len(self.columns[0])

    def rows(self) -> Iterator[Row]:
        """The rows one at a time."""
        values = zip(*(column.to_pylist() for column in self.columns), strict=True)
        return map(Row, count(self.number), count(self.line), values)


def splittable(dialect: Dialect) -> bool:
    """Whether pyarrow takes the delimiter and the quotes of a dialect."""
    return (dialect.delimiter == NO_DELIMITER or dialect.delimiter.isascii()) and (dialect.quote or "").isascii()


class Splitter:
    """Splits blocks of whole lines into columns if no rule about malformed rows, quotes or escapes can apply to them."""

    def __init__(self, dialect: Dialect, wanted: Sequence[str]) -> None:
        names = [str(at) for at in range(len(dialect.columns))]
        delimiter = SEPARATOR if dialect.delimiter == NO_DELIMITER else dialect.delimiter
        self.quote = dialect.quote
        self.refused = ["\0", "\r", f"\n{BYTE_ORDER_MARK}"]
        if dialect.delimiter == NO_DELIMITER:
            self.refused.append(SEPARATOR)
        if dialect.escape == "backslash" and dialect.quote is not None:
            self.refused.append("\\")
        d, q = re.escape(delimiter), re.escape(self.quote or "")
        field = rf"(?:{q}(?:[^{q}]|{q}{q})*+{q}|(?:[^{q}{d}][^{d}]*+)?)"
        self.regular = re.compile(rf"{field}(?:{d}{field})*+") if self.quote else None
        self.parsing = csv.ParseOptions(delimiter=delimiter, quote_char=self.quote or False)
        self.reading = csv.ReadOptions(use_threads=False, column_names=names)
        self.converting = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()),
            include_columns=[names[dialect.columns.index(name)] for name in wanted],
            null_values=[NULL],
            strings_can_be_null=True,
        )
        # A row with these values may repeat the header.
        self.header = wanted if dialect.header else ()

    def __call__(self, text: str) -> list[pa.Array] | None:
        """The wanted columns of a block of whole lines; None if its records have to be read one at a time."""
        text = text.replace("\r\n", "\n")
        if not text.endswith("\n") or text.startswith(BYTE_ORDER_MARK):
            return None
        if any(character in text for character in self.refused):
            return None
        if self.regular is not None and self.quote is not None and self.quote in text:
            quoted = (line for line in text.split("\n") if self.quote in line)
            if not all(map(self.regular.fullmatch, quoted)):
                return None
        try:
            content = text.encode()
            self.reading.block_size = len(content)
            table = csv.read_csv(io.BytesIO(content), self.reading, self.parsing, self.converting)
        except (UnicodeEncodeError, pa.ArrowInvalid):
            return None
        if table.num_rows != text.count("\n"):
            # It has blank lines, which are not rows.
            return None
        columns = [column.combine_chunks() for column in table.columns]
        named = [pc.equal(column, name) for column, name in zip(columns, self.header, strict=False)]
        if named and pc.any(reduce(pc.and_, named)).as_py():
            return None
        return columns
