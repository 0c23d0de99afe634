"""The form of a column's values, such as labels and ids have it, by which rows differ from the lines of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A column holds categories, or values of some shapes, if it has at most so many of them, and each occurs so often on average.
FEW_VALUES, FEW_SHAPES, OFTEN = 200, 50, 2
TOKEN, WHITE_SPACE, DIGIT = re.compile(r"[^\W_]+"), re.compile(r"\s"), re.compile("[9x]")


@dataclass(frozen=True)
class Form:
    """What the values of a column have in common.

    values : categories such as labels, if there are few. counts_up : whether they are numbers, each the one before plus 1.
    shapes : of single words; rare categories may have them, too.
    """

    values: frozenset[str] = frozenset()
    counts_up: bool = False
    shapes: frozenset[str] = frozenset()

    def tells(self, values: Sequence[str]) -> bool:
        """Whether fitting values tell rows from other text: single words of letters are in every text."""
        if self.values:
            return not self.values.isdisjoint(values)
        return self.counts_up or all(map(DIGIT.search, self.shapes))

    def fits(self, values: Sequence[str]) -> bool:
        """Whether consecutive values of a column have the form."""
        if self.counts_up:
            return all(steps(values))
        return all(value in self.values or shape(value) in self.shapes for value in values)


def shape(value: str) -> str:
    """The shape of a value: digits and words of digits and letters keep their length, words of letters do not.

    >>> shape("INV-2024/17"), shape("3f2504e0"), shape("spam")
    ('a-9999/99', 'xxxxxxxx', 'a')
    """

    def of_token(match: re.Match[str]) -> str:
        token = match[0]
        return "a" if token.isalpha() else ("9" if token.isdecimal() else "x") * len(token)

    return TOKEN.sub(of_token, value)


def steps(values: Sequence[str]) -> list[bool]:
    """Whether each value but the first is the number after the one before.

    >>> steps(["9", "10", "12", "x"])
    [True, False, False]
    """
    numbers = [int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else -1 for value in values]
    return [after == before + 1 > 0 for before, after in pairwise(numbers)]


def form_of(values: Sequence[str]) -> Form | None:
    """The form of a column by the values of some rows; None for a column of free text, or without a value.

    >>> sorted(form_of(["not spam", "spam", "not spam", "spam"]).values)
    ['not spam', 'spam']
    >>> form_of(["7", "8", "9"]) == Form(counts_up=True), form_of(["see you", "thanks", "call me"])
    (True, None)
    """
    present = [value for value in values if value]
    distinct = frozenset(present)
    if distinct and len(distinct) <= FEW_VALUES and OFTEN * len(distinct) <= len(present):
        return Form(values=distinct, shapes=frozenset(shape(value) for value in distinct if not WHITE_SPACE.search(value)))
    if any(map(WHITE_SPACE.search, present)):
        return None
    if (found := steps(present)) and OFTEN * sum(found) > len(found):
        return Form(counts_up=True)
    shapes = frozenset(map(shape, present))
    return Form(shapes=shapes) if shapes and len(shapes) <= FEW_SHAPES and OFTEN * len(shapes) <= len(present) else None


def forms_of(rows: Sequence[Sequence[str]], count: int) -> tuple[tuple[int, Form], ...]:
    """The columns that have a form, by position, of the rows with `count` fields."""
    columns = zip(*(fields for fields in rows if len(fields) == count), strict=True)
    return tuple((at, form) for at, values in enumerate(columns) if (form := form_of(values)) is not None)
