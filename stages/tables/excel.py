"""Rows of a spreadsheet: the first sheet of an .xlsx file, whose first row names the columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import cache, partial
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from stages.store.ids import EXACT
from stages.tables.dialect import Dialect
from stages.tables.parquet_rows import inexact
from stages.tables.rows import Row, check_columns


class FormulaError(str):
    """The error that a formula gives instead of a value, such as #REF!."""


def value_of(cell: Any) -> Any:
    """The value of a cell; None for #N/A, with which a formula says that a value is missing.

    A cell holds characters that XML does not have by their codes, such as _x000D_ for a carriage return.
    """
    # Slow import, needed only for spreadsheets.
    from openpyxl.utils.escape import unescape

    if cell.data_type != "e":
        return unescape(cell.value) if isinstance(cell.value, str) else cell.value
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
def sheets(path: Path, *, formulas: bool = False) -> Iterator[Sequence[Any]]:
    """The sheets of a file, with the values of its cells or their formulas; raises UserError for a file without one."""
    # Slow import, needed only for spreadsheets.
    import openpyxl

    with warnings.catch_warnings():
        # About styles and extensions that do not matter here.
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(path, read_only=True, data_only=not formulas)
    try:
        if not book.worksheets:
            raise UserError(f"{path}: no sheet with cells")
        for sheet in book.worksheets:
            # Some programs write a size that is too small.
            sheet.reset_dimensions()
        yield book.worksheets
    finally:
        book.close()


def excel_dialect(path: Path) -> Dialect:
    """The dialect of a spreadsheet."""
    with sheets(path) as (first, *others):
        unread = [
            sheet for sheet in others if any(value is not None for row in sheet.iter_rows(values_only=True) for value in row)
        ]
        return Dialect(format="xlsx", sheet=first.title, unread=tuple(sheet.title for sheet in unread))


def formulas_of(path: Path) -> frozenset[tuple[int, int]]:
    """The row and column, from 1, of each formula of the first sheet."""
    with sheets(path, formulas=True) as (first, *_):
        return frozenset((cell.row, cell.column) for row in first.iter_rows() for cell in row if cell.data_type == "f")


def excel_rows(path: Path, source: str, wanted: Mapping[str, str]) -> Iterator[Row]:
    """Rows of the first sheet; blank rows are skipped. Raises UserError for a missing column, and the errors of openpyxl."""
    header: Sequence[str] | None = None
    number = 0
    at: Sequence[int] = []
    # Only a cell without a value makes the search necessary.
    formulas = cache(partial(formulas_of, path))
    with sheets(path) as (first, *_):
        for line, cells in enumerate(first.iter_rows(), start=1):
            values = [value_of(cell) for cell in cells]
            texts = [cell_text(value) for value in values]
            if header is None:
                if any(text is not None for text in texts):
                    header = [text or "" for text in texts]
                    check_columns(source, header, wanted)
                    at = [header.index(name) for name in wanted]
                continue
            faults = [
                (reason, str(values[column]))
                for name, column in zip(wanted, at, strict=True)
                if column < len(cells) and (reason := fault(name, values[column], cells[column], formulas))
            ]
            if not faults and all(text is None for text in texts):
                continue
            number += 1
            if faults:
                yield Row(number, line, (), *faults[0])
            else:
                yield Row(number, line, [texts[column] if column < len(texts) else None for column in at])
    if header is None:
        check_columns(source, [], wanted)


def fault(name: str, value: Any, cell: Any, formulas: Callable[[], Collection[tuple[int, int]]]) -> str | None:
    """Why the value of a cell in a column is no text; None if it can be text or is missing."""
    if isinstance(value, FormulaError):
        return f"the column {name!r} holds {value}, the error of a formula; correct it"
    # The value "" of a formula has the type of a string.
    if value is None and cell.data_type == "n" and hasattr(cell, "row") and (cell.row, cell.column) in formulas():
        return f"the column {name!r} holds a formula without a stored value; open the file in a spreadsheet and save it"
    # A spreadsheet stores numbers as floats: 2^53 + 1 becomes 2^53.
    return inexact(name, value) if isinstance(value, int | float) and abs(value) >= EXACT else None
