"""Rows of production messages, and the columns that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """A row of a source: `number` counts the rows of its file from 1, and a malformed row has a `reason`.

    answer : for a message that was answered already, the sha256 of the version, and the probabilities by label.
    """

    source: str
    number: int
    id: str | int | None
    text: str | None
    reason: str | None = None
    line: int | None = None
    answer: tuple[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of the text and of the id; without an id column, the row number is the id.

    settings : the key of params.yaml that names each column.
    """

    text: str
    id: str | None
    settings: Mapping[str, str]

    @property
    def wanted(self) -> dict[str, str]:
        """The columns to read, and the setting that names each."""
        return {name: self.settings[name] for name in (self.text, self.id) if name is not None}
