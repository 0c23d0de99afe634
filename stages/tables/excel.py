"""Rows of a spreadsheet: the first sheet of an .xlsx file, whose first row names the columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from stages.store.ids import EXACT
from stages.tables.dialect import Dialect
from stages.tables.parquet_rows import inexact
from stages.tables.rows import Row, check_columns, picker


class FormulaError(str):
    """The error that a formula gives instead of a value, such as #REF!."""


def value_of(cell: Any) -> Any:
    """The value of a cell; None for #N/A, with which a formula says that a value is missing."""
    if cell.data_type != "e":
        return cell.value
    return None if cell.value == "#N/A" else FormulaError(cell.value)


def cell_text(value: Any) -> str | None:
    """The value of a cell as text; an empty cell is a missing value.

    >>> cell_text(5.0), cell_text(True), cell_text(""), cell_text("nan")
    ('5', 'true', None, 'nan')
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)


@contextmanager
def first_sheet(path: Path) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
    """The name of the first sheet, and its rows as values; raises UserError for a file without one."""
    # Slow import, needed only for spreadsheets.
    import openpyxl

    with warnings.catch_warnings():
        # About styles and extensions that do not matter here.
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        if not book.worksheets:
            raise UserError(f"{path}: no sheet with cells")
        sheet = book.worksheets[0]
        yield sheet.title, (tuple(map(value_of, row)) for row in sheet.iter_rows())
    finally:
        book.close()


def excel_dialect(path: Path) -> Dialect:
    """The dialect of a spreadsheet."""
    with first_sheet(path) as (title, _):
        return Dialect(format="xlsx", sheet=title)


def excel_rows(path: Path, source: str, wanted: Mapping[str, str]) -> Iterator[Row]:
    """Rows of the first sheet; blank rows are skipped. Raises UserError for a missing column, and the errors of openpyxl."""
    header: Sequence[str] | None = None
    number = 0
    pick = picker([0])
    with first_sheet(path) as (_, rows):
        for line, values in enumerate(rows, start=1):
            texts = [cell_text(value) for value in values]
            if all(text is None for text in texts):
                continue
            if header is None:
                header = [text or "" for text in texts]
                check_columns(source, header, wanted)
                pick = picker([header.index(name) for name in wanted])
                continue
            number += 1
            missing: list[Any] = [None] * (len(header) - len(texts))
            cells: Sequence[Any] = pick([*values, *missing])
            wrong = [(reason, str(value)) for name, value in zip(wanted, cells, strict=True) if (reason := fault(name, value))]
            if wrong:
                yield Row(number, line, (), *wrong[0])
            else:
                yield Row(number, line, pick([*texts, *missing]))  # type: ignore[list-item]
    if header is None:
        check_columns(source, [], wanted)


def fault(name: str, value: Any) -> str | None:
    """Why the value of a cell in a column is no text; None if it can be text."""
    if isinstance(value, FormulaError):
        return f"the column {name!r} holds {value}, the error of a formula; correct it"
    # A spreadsheet stores numbers as floats: 2^53 + 1 becomes 2^53.
    return inexact(name, value) if isinstance(value, int | float) and abs(value) >= EXACT else None
