"""Checks of numeric parameters: finite numbers within plausible limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ballast.exceptions import UserError, short
from ballast.io.urls import redact
from ballast.labels import check_all_labels

# Limit of counts. They fit into 64 bits, and into a float without loss.
MANY = 10**9
# Limit of other numbers, such as a loss, a cost or a rate. Their sums and products stay finite.
LARGE = 1e9
# Limit of durations, in hours.
YEAR_HOURS = 366 * 24
# Largest seed of the generators of numpy and torch.
SEEDS = 2**32 - 1


def format_number(number: float) -> str:
    """A number for people: 1,000 or 0.25."""
    return f"{int(number):,}" if float(number).is_integer() and abs(number) < 10**15 else f"{number:g}"


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise UserError unless a value is a number from `low` to `high`. NaN, booleans and text are not numbers.

    >>> check_number("--size", 10**12, 1, 1000, whole=True)
    Traceback (most recent call last):
    ballast.exceptions.UserError: --size is 1000000000000; expected a whole number from 1 to 1,000
    """
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise UserError(f"{name} is {quoted(value)}; expected a {kind} from {format_number(low)} to {format_number(high)}")


def quoted(value: object) -> str:
    """The repr of a value, shortened, without secrets."""
    try:
        return short(redact(repr(value)))
    # A number with thousands of digits, or a list that contains itself.
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"


def require_positive(name: str, value: object, *, at_least: float = 0.0, at_most: float = LARGE) -> float:
    """The value of the parameter `name` as a float. Raises UserError unless it is positive and within the limits."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGE else np.nan
    if not max(at_least, 0) <= number <= at_most or number == 0:
        lower = f"of at least {at_least:g}" if at_least else "above 0"
        # The general limit matters only for a number that exceeds it.
        shows_limit = at_most != LARGE or (isinstance(value, int | float) and value > LARGE)
        upper = f" and at most {format_number(at_most)}" if shows_limit else ""
        raise UserError(f"{name} must be a number {lower}{upper}, not {quoted(value)}")
    return number


def per_class(name: str, values: object, labels: Sequence[str]) -> np.ndarray:
    """Values (K,) of a parameter that maps class indices to positive numbers.

    Raises UserError if a class is missing or a value is not positive.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{name} must give a number for each class ({', '.join(labels)}), not {quoted(values)}")
    check_all_labels(name, [labels[index] for index in values], labels)
    return np.array([require_positive(f"{name} of {label}", values[index]) for index, label in enumerate(labels)])
