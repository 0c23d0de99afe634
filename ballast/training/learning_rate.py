"""Choose a learning rate by trial: climb from a usual one while the next one is clearly better on validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATES = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
# Suits one trained layer of a small encoder.
FIRST = 2e-4

# Learning rate -> the log loss (n,) of each validation message; infinite if the training diverges.
Losses = Callable[[float], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Climb:
    """The chosen learning rate, and the mean log loss of every rate that was tried, in the order of the trials."""

    rate: float
    losses: dict[float, float]


def clearly_lower(losses: np.ndarray, others: np.ndarray) -> bool:
    """Whether losses (n,) are lower than others (n,) of the same messages by more than one standard error.

    Examples
    --------
    >>> others = np.array([0.3, 0.1, 0.4, 0.2])
    >>> clearly_lower(others - 0.1, others), clearly_lower(others[::-1] - 0.001, others)
    (True, False)
    """
    if not np.isfinite(losses).all():
        return False
    if not np.isfinite(others).all():
        return True
    gain = others - losses
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def climb(losses_of: Losses, without_model: np.ndarray, first: float = FIRST) -> Climb:
    """Move from `first` to larger rates, otherwise to smaller ones, as long as each is clearly better than the one before.

    A rate is clearly better if its mean log loss is lower by more than one standard error of the paired difference: without a
    clear gain, the usual rate stays. The climb does not stop at a rate with which nothing is learned: it goes on to smaller
    ones.

    without_model : log loss (n,) of the class shares alone.

    Examples
    --------
    >>> found = climb(lambda rate: np.abs(np.log(rate / 1e-3)) + np.zeros(10), without_model=np.full(10, 9.0))
    >>> found.rate, list(found.losses)
    (0.001, [0.0002, 0.0005, 0.001, 0.002])
    """
    at = start = RATES.index(first)
    losses = {at: losses_of(first)}
    for step in (1, -1):
        if at != start:
            break
        while 0 <= at + step < len(RATES):
            losses[at + step] = losses_of(RATES[at + step])
            learns = clearly_lower(losses[at], without_model)
            if not clearly_lower(losses[at + step], losses[at]) and (step > 0 or learns):
                break
            at += step
    if at < start and not clearly_lower(losses[at], without_model):
        at = start
    return Climb(rate=RATES[at], losses={RATES[tried]: float(each.mean()) for tried, each in losses.items()})
