"""Numbers within limits: what a person gives as a number is one, finite, and not beyond what can be meant."""

from __future__ import annotations

from ballast.errors import UserError, short
from ballast.urls import hidden

# More than anybody counts; what is counted still fits into 64 bits, and into a floating point number without loss.
MANY = 10**9
# A number that is no number of things: a loss, a cost, a rate. Sums and products of such ones stay finite.
LARGE = 1e9
# The longest that anything waits or lasts in hours: a year.
YEAR_HOURS = 366 * 24
# Of numpy's and torch's generators.
SEEDS = 2**32 - 1


def plain(number: float) -> str:
    """A number as a person writes it."""
    return f"{int(number):,}" if float(number).is_integer() and abs(number) < 10**15 else f"{number:g}"


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise UserError unless a value is a number within limits; NaN, truth values and texts are none.

    >>> check_number("--size", 10**12, 1, 1000, whole=True)
    Traceback (most recent call last):
    ballast.errors.UserError: --size is 1000000000000; expected a whole number from 1 to 1,000
    """
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise UserError(f"{name} is {quoted(value)}; expected a {kind} from {plain(low)} to {plain(high)}")


def quoted(value: object) -> str:
    """A value as Python writes it, as far as it can and a line has room."""
    try:
        return short(hidden(repr(value)))
    # A number of thousands of digits, a list within lists without end.
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
