"""Artifacts of a run: what Prefect shows of it, in text that its database takes and a page shows as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ballast.io.printable import one_line, printable, printable_values


def markdown(text: str, *, key: str, description: str) -> None:
    """A page of Markdown."""
    create_markdown_artifact(printable(text, lines=True), key=key, description=one_line(description))


def table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """A table of rows by title."""
    create_table_artifact(printable_values(list(rows)), key=key, description=one_line(description))
