"""Columns of training data as text; an invalid value is an error that names the row."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ballast.exceptions import UserError


def as_strings(column: pa.ChunkedArray, name: str, served_by: str) -> pa.ChunkedArray:
    """A column as strings, null for a floating-point NaN, which pandas writes for a missing value.

    Raises UserError, with the row, for infinite numbers, nested values, NUL, and bytes that are not UTF-8.
    """
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        row = pc.index(pc.fill_null(pc.is_finite(column), True), False).as_py()
        if row >= 0:
            value = column[row].as_py()
            raise UserError(f"{served_by}: row {row + 1} has {value} in the column {name!r}; expected a value or null")
    try:
        strings = pc.cast(column, pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"{served_by}: the column {name!r} holds {column.type}, expected text") from error
    if (row := first_undecodable(strings)) is not None:
        raise UserError(f"{served_by}: row {row + 1} is not UTF-8 in the column {name!r}; expected text")
    row = pc.index(pc.fill_null(pc.match_substring(strings, "\0"), False), True).as_py()
    if row >= 0:
        raise UserError(f"{served_by}: row {row + 1} has a NUL byte in the column {name!r}; expected text")
    return strings


def first_undecodable(strings: pa.ChunkedArray) -> int | None:
    """The first row of strings (n,) that is not UTF-8, which parquet does not guarantee; None if there is none."""
    content = pc.cast(strings, pa.large_binary())
    try:
        pc.cast(content, pa.large_string())
    except pa.ArrowInvalid:
        for row, value in enumerate(content):
            try:
                (value.as_py() or b"").decode()
            except UnicodeDecodeError:
                return row
    return None
