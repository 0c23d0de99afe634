"""Ids of messages: values that name a message in files of every format."""

from __future__ import annotations

import math
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# How a missing number reads after it became text; it is not an id.
NOT_FINITE = r"(?i)^\s*[+-]?(nan|inf|infinity)\s*$"
# How spreadsheets and floats show a number with too many digits: several ids may read the same.
ROUNDED = r"(?i)^\s*[+-]?[0-9]\.[0-9]+e\+?[0-9]{2,}\s*$"
SPELT, IN_POWERS = re.compile(NOT_FINITE), re.compile(ROUNDED)
# Beyond these limits a number differs between formats: floats have no more digits, integers no more bits.
EXACT, LEAST_WHOLE, LARGEST_WHOLE = 2**53, -(2**63), 2**64 - 1
BEYOND = "a number beyond 64 bits, which loses its digits; write ids as text"


def malformed_number(value: float) -> str | None:
    """Why a number is not a valid id; None if it is one."""
    if isinstance(value, int):
        return None if LEAST_WHOLE <= value <= LARGEST_WHOLE else f"the id is {BEYOND}"
    if not math.isfinite(value):
        return f"the id is {value}"
    return None if abs(value) <= EXACT else f"the id is {BEYOND}"


def malformed_spelling(text: str) -> str | None:
    """Why a text is not a valid id; None if it is one.

    >>> malformed_spelling("9223372036854775813"), malformed_spelling(" NaN")
    (None, 'the id is NaN')
    >>> malformed_spelling("9.22337E+18")
    'the id is 9.22337E+18, a number that lost its digits; write ids as text'
    """
    if SPELT.match(text):
        return f"the id is {text.strip()}"
    return f"the id is {text.strip()}, a number that lost its digits; write ids as text" if IN_POWERS.match(text) else None


def first_wrong_id(column: pa.ChunkedArray) -> tuple[int, str] | None:
    """The first row (from 0) of a column with a number that is not a valid id, and the reason; None if there is none."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        wrong = pc.invert(pc.less_equal(pc.abs(pc.cast(column, pa.float64())), float(EXACT)))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        wrong = pc.match_substring_regex(pc.cast(column, pa.large_string()), f"{NOT_FINITE}|{ROUNDED}")
    else:
        return None
    row = pc.index(pc.fill_null(wrong, False), True).as_py()
    if row < 0:
        return None
    value: Any = column[row].as_py()
    return row, (malformed_number(value) if isinstance(value, float) else malformed_spelling(value)) or ""
