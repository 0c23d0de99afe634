"""Extrapolate a learning curve: an error that falls with the number of training messages by a power law.

The law is error(n) = a n^-b + c with a, b, c >= 0. Few points cannot tell a curve with a floor c from one without, and the two
extrapolate differently. The value comes from the law with a floor, and the interval spans both laws. With one law alone, it can
miss: without a floor on data that have one, with a floor on data that have none (`benchmarks/learning_curve.py`).

Source: Hestness et al., Deep Learning Scaling Is Predictable, Empirically (1712.00409): the exponent belongs to the task, the
model moves the offset; Cortes et al., Learning Curves: Asymptotic Values and Rate of Convergence (NIPS 1993), the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.evaluation.bootstrap import percentile_interval

# The classical rate of a parametric model is 1/2 to 1; larger exponents only chase the noise of the smallest share.
EXPONENTS = np.linspace(0, 2, 201)
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class PowerLaws:
    """Power laws scale x^-exponent + floor, one for each of d draws: arrays (d,). x is 1 at the largest size.

    Examples
    --------
    >>> laws = PowerLaws(scale=np.array([0.04]), exponent=np.array([1.0]), floor=np.array([0.01]))
    >>> laws.at(2.0), laws.reduction(2.0)
    (array([0.03]), array([0.4]))
    """

    scale: np.ndarray
    exponent: np.ndarray
    floor: np.ndarray

    def at(self, size: float) -> np.ndarray:
        """The error (d,) at a size, in multiples of the largest measured one."""
        return self.scale * size**-self.exponent + self.floor

    def reduction(self, factor: float) -> np.ndarray:
        """The share (d,) of today's error that `factor` times as many messages remove."""
        now = self.at(1.0)
        return np.divide(now - self.at(factor), now, out=np.zeros_like(now), where=now > 0)


def fit_power_laws(sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray, *, floor: bool) -> PowerLaws:
    """Least squares over a grid of exponents, for which scale and floor have closed forms.

    Parameters
    ----------
    sizes : (p,) number of training messages, in increasing order.
    errors : (d, p) errors of d draws; 0 is allowed.
    weights : (p,) of the squared residuals.
    floor : whether the law has a floor.

    Examples
    --------
    >>> sizes = np.array([500, 1000, 2000, 4000])
    >>> laws = fit_power_laws(sizes, (0.02 * (sizes / 4000) ** -0.5 + 0.01)[None], np.ones(4), floor=True)
    >>> laws.scale.round(3), laws.exponent.round(2), laws.floor.round(3)
    (array([0.02]), array([0.5]), array([0.01]))
    """
    size, weight = sizes / sizes[-1], weights / weights.sum()
    mean = errors @ weight
    fitted = PowerLaws(scale=np.zeros(len(errors)), exponent=np.zeros(len(errors)), floor=mean.copy())
    least = ((errors - mean[:, None]) ** 2) @ weight
    for exponent in EXPONENTS[1:]:
        law = size**-exponent
        scale, lowest = (errors * weight) @ law / (weight @ law**2), np.zeros(len(errors))
        if floor:
            centred = law - weight @ law
            slope = (errors * weight) @ centred / (weight @ centred**2)
            intercept = mean - slope * (weight @ law)
            # Without a floor where the best one is below 0; without a slope, the constant error above is the better fit.
            scale, lowest = np.where(intercept < 0, scale, slope.clip(min=0)), intercept.clip(min=0)
        residual = ((errors - np.outer(scale, law) - lowest[:, None]) ** 2) @ weight
        better = residual < least
        least[better] = residual[better]
        fitted.scale[better], fitted.exponent[better], fitted.floor[better] = scale[better], exponent, lowest[better]
    return fitted


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """The share of today's error that more training messages remove.

    value : by the law with a floor, on the measured errors.
    with_floor, without_floor : (resamples,) draws by both laws.
    law : the fitted law with a floor.
    """

    value: float
    with_floor: np.ndarray
    without_floor: np.ndarray
    law: PowerLaws

    def gain(self, error: float, draws: np.ndarray, confidence: float) -> dict[str, float]:
        """By how much an error falls: value, low, high; from the error and its draws (resamples,), independent of the curve's.

        The error may be that of another model, if it falls at the same rate.
        """
        ends = [percentile_interval(share * draws, confidence) for share in (self.with_floor, self.without_floor)]
        value = self.value * error
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        return {"value": value, "low": min(low, value), "high": max(high, value)}


def extrapolate(sizes: np.ndarray, errors: np.ndarray, draws: np.ndarray, factor: float = 2.0) -> Extrapolation:
    """Extrapolate errors (p,) with draws (resamples, p) at p training sizes to `factor` times the largest size.

    Raises ValueError for fewer than three sizes.

    Examples
    --------
    >>> sizes = np.array([500, 1000, 2000, 4000])
    >>> errors = 0.02 * (sizes / 4000) ** -1.0
    >>> draws = errors * np.random.default_rng(0).normal(1, 0.01, size=(200, 4))
    >>> round(extrapolate(sizes, errors, draws).value, 2)
    0.5
    """
    if len(sizes) < 3:
        raise ValueError(f"a learning curve needs at least three sizes, got {len(sizes)}")
    weights = 1 / np.maximum(draws.var(axis=0), LEAST_VARIANCE)
    law = fit_power_laws(sizes, errors[None], weights, floor=True)
    by_floor = {floor: fit_power_laws(sizes, draws, weights, floor=floor).reduction(factor) for floor in (True, False)}
    return Extrapolation(
        value=float(law.reduction(factor)[0]), with_floor=by_floor[True], without_floor=by_floor[False], law=law
    )
