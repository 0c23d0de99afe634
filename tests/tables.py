"""What tests of tables share: columns, rows with and without stray quotes, and reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.production.rows import Columns
from stages.store.data_sections import DialectSettings
from stages.tables.detect import Expected
from stages.tables.reader import open_table
from stages.tables.rows import Row
from stages.tables.training import Read, read_training

WANTED = {"text": "ingest.text_column", "label": "ingest.label_column"}
COLUMNS = Columns(text="text", id="label", settings=WANTED)


def table_of(tmp_path: Path, name: str, content: str | bytes, **expected: Any) -> tuple[str, list[Row]]:
    """The dialect of a file in words, and its rows."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    expected["dialect"] = DialectSettings(**expected.pop("dialect", {}))
    table = open_table(path, name, Expected(**{"wanted": WANTED, **expected}))
    rows = list(table.rows())
    return table.dialect.in_words(), rows


def values_of(rows: list[Row]) -> list[tuple[str | None, ...]]:
    return [tuple(row.values) for row in rows if row.reason is None]


def training(path: Path, wanted: Mapping[str, str] = WANTED, **arguments: Any) -> Read:
    return read_training(str(path), Expected(wanted=wanted), **arguments)


def spoilt(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Tweets with stray quotes: at the beginning, at the end, around words."""
    return [
        (f'"{text}' if at % 9 == 0 else f'{text}"' if at % 9 == 4 else f'"Great" {text}' if at % 9 == 6 else text, label)
        for at, (text, label) in enumerate(rows)
    ]


MANY = [(f"message {number} of many words", "ham" if number % 3 else "spam") for number in range(360)]
