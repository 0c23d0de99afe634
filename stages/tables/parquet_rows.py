"""Rows of parquet files: plain values as text, NaN as a missing value; checksums are verified if the file has any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError
from stages.store.ids import EXACT
from stages.tables.rows import Row, check_columns

# Bytes to read ahead, and rows at once.
BLOCK_BYTES, PARQUET_ROWS = 1 << 22, 1000


def parquet_rows(path: Path, source: str, wanted: Mapping[str, str]) -> Iterator[Row]:
    """Rows of a parquet file; raises UserError for a missing column and for nested values, and the errors of pyarrow."""
    with path.open("rb") as file:
        digest.check(file, required=False)
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True)
        check_columns(source, table.schema_arrow.names, wanted)
        number = 0
        for batch in table.iter_batches(PARQUET_ROWS, columns=list(wanted)):
            columns = [column_texts(source, name, batch.column(name)) for name in wanted]
            for values in zip(*columns, strict=True):
                number += 1
                numbers = [(name, value) for name, value in zip(wanted, values, strict=True) if isinstance(value, float)]
                if numbers:
                    yield Row(number, None, (), inexact(*numbers[0]), str(numbers[0][1]))
                else:
                    yield Row(number, None, values)


def inexact(name: str, value: float) -> str:
    """Why a number cannot be text."""
    if abs(value) == float("inf"):
        return f"the column {name!r} holds {value}; expected text or a finite number"
    return f"the column {name!r} holds a number beyond 53 bits, which has lost its digits; write such numbers as text"


def column_texts(source: str, name: str, column: pa.Array) -> list[Any]:
    """The values of a column as text; raises UserError for nested values.

    NaN becomes None. Numbers that are infinite, or too large for exact digits, stay numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    numbers: list[float | None] = [None] * len(column)
    if pa.types.is_floating(kind):
        column = pc.cast(column, kind)
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        values = pc.cast(column, pa.float64()).to_pylist()
        numbers = [None if value is None or abs(value) <= EXACT else float(value) for value in values]
    try:
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            column = pc.cast(column, pa.large_string())
        content = pc.cast(column, pa.large_binary()).to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"{source}: the column {name!r} holds {column.type}, expected text") from error
    texts = [None if value is None else value.decode("utf-8", "surrogateescape") for value in content]
    return [text if number is None else number for text, number in zip(texts, numbers, strict=True)]
