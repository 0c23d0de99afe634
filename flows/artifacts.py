"""Artifacts of a run in Prefect, with text escaped for its database and its pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ballast.io.printable import one_line, printable, printable_values


def markdown(text: str, *, key: str, description: str) -> None:
    """Publish a page of Markdown."""
    create_markdown_artifact(printable(text, lines=True), key=key, description=one_line(description))


def table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Publish a table, from rows that map column titles to values."""
    create_table_artifact(printable_values(list(rows)), key=key, description=one_line(description))
