"""Class labels in settings: as text, and checked against the labels of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ballast.exceptions import UserError, suggestion

Value = TypeVar("Value")


def label_name(key: object) -> str:
    """A label as text: YAML parses `1` as a number, and `true` and `no` as booleans."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def by_label(values: Mapping[object, Value]) -> dict[str, Value]:
    """A mapping with labels as text for keys."""
    return {label_name(key): value for key, value in values.items()}


def check_labels(name: str, given: Iterable[str], labels: Sequence[str]) -> None:
    """Raise UserError for a label that the data does not have. `name` is the argument in the message."""
    unknown = [label for label in given if label not in labels]
    if unknown:
        raise UserError(f"{name} names the class {unknown[0]!r}: {suggestion(unknown[0], labels)}")


def check_all_labels(name: str, given: Sequence[str] | Mapping[str, object], labels: Sequence[str]) -> None:
    """Raise UserError unless the given labels are exactly those of the data."""
    check_labels(name, given, labels)
    missing = [label for label in labels if label not in given]
    if missing:
        raise UserError(f"{name} misses the class {', '.join(map(repr, missing))}; it must name each of {', '.join(labels)}")
