"""What a comparison could have shown: the smallest difference, and the messages and seeds that would decide a given one.

Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988); Satterthwaite (1946) for the degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from ballast.evaluation.bootstrap import Draws, SeedError

# Probability of showing a difference that exists.
POWER = 0.8
# Seeds that measure the variation between trainings where one seed leaves it unknown.
FIRST_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class DifferenceError:
    """Standard error of a paired difference, from the sampling of messages and from the trainings of both techniques.

    degrees : degrees of freedom of `seeds`; 0 means that the variation between trainings is not measured.

    Examples
    --------
    >>> error = DifferenceError(messages=0.006, seeds=0.008, degrees=40)
    >>> round(error.total, 3), round(error.scaled(messages=4, seeds=1).total, 4)
    (0.01, 0.0085)
    """

    messages: float
    seeds: float
    degrees: float = 0.0

    @property
    def total(self) -> float:
        """The standard error of the difference."""
        return math.hypot(self.messages, self.seeds)

    def scaled(self, *, messages: float, seeds: float) -> DifferenceError:
        """The standard error with so many times the test messages and the seeds. Its degrees of freedom grow with the seeds."""
        return DifferenceError(
            messages=self.messages / math.sqrt(messages), seeds=self.seeds / math.sqrt(seeds), degrees=self.degrees * seeds
        )

    def quantiles(self, level: float, power: float) -> float:
        """Standard errors between 0 and a difference that a two-sided test at `level` shows with probability `power`."""
        known = self.degrees and self.seeds
        freedom = self.degrees * (self.total / self.seeds) ** 4 if known else math.inf
        return float(t.ppf(1 - level / 2, freedom) + t.ppf(power, freedom))


def difference_error(own: Draws, other: Draws, metric: str) -> DifferenceError:
    """The standard error of the difference of a metric between two techniques with paired draws."""
    sampled = [(draws.sampling or draws.values)[metric] for draws in (own, other)]
    nothing = SeedError(value=0.0, degrees=math.inf)
    errors = [draws.seed_errors.get(metric, nothing) for draws in (own, other)]
    variances = [error.value**2 for error in errors]
    unknown = any(error.value and not error.degrees for error in errors)
    spread = sum(variance**2 / error.degrees for variance, error in zip(variances, errors, strict=True) if error.degrees)
    degrees = 0.0 if unknown or not spread else sum(variances) ** 2 / spread
    return DifferenceError(
        messages=float(np.std(sampled[0] - sampled[1], ddof=1)), seeds=math.sqrt(sum(variances)), degrees=degrees
    )


def smallest_difference(error: DifferenceError, level: float, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at `level` shows with probability `power`.

    level : for the first of m differences after Holm's correction, (1 - confidence) / m.

    Examples
    --------
    >>> round(smallest_difference(DifferenceError(messages=0.01, seeds=0.0), level=0.05), 3)
    0.028
    """
    return error.quantiles(level, power) * error.total


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Test messages of the rare class and seeds that decide a question."""

    rare: int
    seeds: int


def needed(
    distance: float, error: DifferenceError, *, rare: int, seeds: int, level: float, power: float = POWER
) -> Needed | None:
    """Test messages of the rare class and seeds to show a difference of `distance` with probability `power`; None if it is 0.

    The message part of the variance falls with the number of messages, the seed part with that of seeds. Trainings cost less
    than labels, so seeds are added until they make up at most half of the variance allowed. If the variation between trainings
    is not measured, `FIRST_SEEDS` seeds are assumed to be enough.

    distance : for a claim of level techniques, what is left to the margin: margin - |difference|.
    rare, seeds : that `error` was measured with.

    Examples
    --------
    >>> error = DifferenceError(messages=0.008, seeds=0.006, degrees=40)
    >>> needed(0.01, error, rare=131, seeds=3, level=0.05)
    Needed(rare=1259, seeds=18)
    >>> needed(0.05, error, rare=131, seeds=3, level=0.05)
    Needed(rare=131, seeds=3)
    """
    if distance <= 0:
        return None
    allowed = (distance / error.quantiles(level, power)) ** 2
    if error.total**2 <= allowed:
        return Needed(rare=rare, seeds=seeds)
    if error.degrees == 0 and error.seeds:
        more, of_seeds = max(seeds, FIRST_SEEDS), 0.0
    else:
        more = max(seeds, math.ceil(seeds * error.seeds**2 / (allowed / 2)))
        of_seeds = error.seeds**2 * seeds / more
    return Needed(rare=max(rare, math.ceil(rare * error.messages**2 / (allowed - of_seeds))), seeds=more)


def smallest_in_words(
    metric: str, label: str, error: DifferenceError, *, rare: int, seeds: int, level: float, times: int = 4
) -> str:
    """The smallest difference that could have been shown, and whether more messages or more seeds would lower it, in words.

    metric : its name in words, such as "spam F1".
    rare : test messages of the class `label`.

    Examples
    --------
    >>> error = DifferenceError(messages=0.008, seeds=0.003, degrees=40)
    >>> print(smallest_in_words("spam F1", "spam", error, rare=131, seeds=3, level=0.05))
    With 131 spam test messages and 3 seeds, differences in spam F1 below 0.024 cannot be shown reliably (power 80%). 4 times as many test messages would lower this to 0.014, 4 times as many seeds would lower this to 0.023.
    >>> error = DifferenceError(messages=0.008, seeds=0.0, degrees=40)
    >>> print(smallest_in_words("spam F1", "spam", error, rare=131, seeds=3, level=0.05))
    With 131 spam test messages and 3 seeds, differences in spam F1 below 0.022 cannot be shown reliably (power 80%). 4 times as many test messages would lower this to 0.011, 4 times as many seeds would not lower it noticeably.
    """  # noqa: E501
    now, messages, more = (
        smallest_difference(error.scaled(messages=messages, seeds=seeds), level)
        for messages, seeds in ((1, 1), (times, 1), (1, times))
    )
    start = (
        f"With {rare:,} {label} test messages and {'1 seed' if seeds == 1 else f'{seeds} seeds'}, differences in {metric}"
        f" below {now:.2g} cannot be shown reliably (power {POWER:.0%})."
    )
    if error.degrees == 0 and error.seeds:
        measured = smallest_difference(DifferenceError(messages=error.messages, seeds=0.0), level)
        return f"{start} One seed does not measure how much trainings vary. If it is little, the limit is {measured:.2g}."
    # If the variation between few trainings is nearly all that is left, more messages leave fewer degrees of freedom.
    effects = [
        f"lower this to {value:.2g}" if float(f"{value:.2g}") < float(f"{now:.2g}") else "not lower it noticeably"
        for value in (messages, more)
    ]
    return f"{start} {times} times as many test messages would {effects[0]}, {times} times as many seeds would {effects[1]}."


def error_as_json(error: DifferenceError) -> Mapping[str, float]:
    """The standard error by source, for JSON."""
    return {"messages": error.messages, "seeds": error.seeds, "degrees": error.degrees}
