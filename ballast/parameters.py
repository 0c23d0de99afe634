"""Numbers within limits: what a person gives as a number is one, finite, and not beyond what can be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ballast.exceptions import UserError, short
from ballast.io.urls import redact
from ballast.labels import check_all_labels

# More than anybody counts; what is counted still fits into 64 bits, and into a floating point number without loss.
MANY = 10**9
# A number that is no number of things: a loss, a cost, a rate. Sums and products of such ones stay finite.
LARGE = 1e9
# The longest that anything waits or lasts in hours: a year.
YEAR_HOURS = 366 * 24
# Of numpy's and torch's generators.
SEEDS = 2**32 - 1


def format_number(number: float) -> str:
    """A number as a person writes it."""
    return f"{int(number):,}" if float(number).is_integer() and abs(number) < 10**15 else f"{number:g}"


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise UserError unless a value is a number within limits; NaN, truth values and texts are none.

    >>> check_number("--size", 10**12, 1, 1000, whole=True)
    Traceback (most recent call last):
    ballast.exceptions.UserError: --size is 1000000000000; expected a whole number from 1 to 1,000
    """
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise UserError(f"{name} is {quoted(value)}; expected a {kind} from {format_number(low)} to {format_number(high)}")


def quoted(value: object) -> str:
    """A value as Python writes it, as far as it can and a line has room."""
    try:
        return short(redact(repr(value)))
    # A number of thousands of digits, a list within lists without end.
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"


def require_positive(name: str, value: object, *, at_least: float = 0.0, at_most: float = LARGE) -> float:
    """The finite number `value` of the parameter `name`; raises UserError unless it is above 0 and within the limits."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGE else np.nan
    if not max(at_least, 0) <= number <= at_most or number == 0:
        lower = f"of at least {at_least:g}" if at_least else "above 0"
        # The limit of all numbers need not be told of a text, or of a number below 0.
        told = at_most != LARGE or (isinstance(value, int | float) and value > LARGE)
        raise UserError(
            f"{name} must be a number {lower}{f' and at most {format_number(at_most)}' if told else ''}, not {quoted(value)}"
        )
    return number


def per_class(name: str, values: object, labels: Sequence[str]) -> np.ndarray:
    """Values (K,) of a parameter that maps each class index to a positive number.

    Raises UserError when a class is missing or a value is not a positive number.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{name} must give a number for each class ({', '.join(labels)}), not {quoted(values)}")
    check_all_labels(name, [labels[index] for index in values], labels)
    return np.array([require_positive(f"{name} of {label}", values[index]) for index, label in enumerate(labels)])
