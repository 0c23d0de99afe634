"""Rows of a spreadsheet: the first sheet of an .xlsx file, whose first row names the columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from stages.tables.dialect import Dialect
from stages.tables.rows import Row, check_columns, picker


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


def sheet_rows(path: Path) -> tuple[str, Iterator[tuple[Any, ...]]]:
    """The name of the first sheet, and its rows as values."""
    # Slow import, needed only for spreadsheets.
    import openpyxl

    with warnings.catch_warnings():
        # About styles and extensions that do not matter here.
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        if not book.worksheets:
            raise UserError(f"{path}: no sheet with cells")
        sheet = book.worksheets[0]
        return sheet.title, sheet.iter_rows(values_only=True)


def excel_dialect(path: Path) -> Dialect:
    """The dialect of a spreadsheet."""
    return Dialect(format="xlsx", sheet=sheet_rows(path)[0])


def excel_rows(path: Path, source: str, wanted: Mapping[str, str]) -> Iterator[Row]:
    """Rows of the first sheet; blank rows are skipped. Raises UserError for a missing column, and the errors of openpyxl."""
    header: Sequence[str] | None = None
    number = 0
    pick = picker([0])
    for line, values in enumerate(sheet_rows(path)[1], start=1):
        texts = [cell_text(value) for value in values]
        if all(text is None for text in texts):
            continue
        if header is None:
            header = [text or "" for text in texts]
            check_columns(source, header, wanted)
            pick = picker([header.index(name) for name in wanted])
            continue
        number += 1
        texts += [None] * (len(header) - len(texts))
        yield Row(number, line, pick(texts))  # type: ignore[arg-type]
    if header is None:
        check_columns(source, [], wanted)
