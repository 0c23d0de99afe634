"""Extrapolated learning curves: planted power laws are found again, with and without a floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.evaluation.power_law import EXPONENTS, PowerLaws, extrapolate, fit_power_laws
from benchmarks.power_law import coverage

SIZES = np.array([500, 1000, 2000, 4000])


@settings(deadline=None, max_examples=40)
@given(st.floats(0.001, 0.5), st.sampled_from(EXPONENTS[10:].tolist()), st.floats(0, 0.3), st.floats(0.1, 10))
def test_exact_laws_are_found_again(scale: float, exponent: float, floor: float, unit: float) -> None:
    errors = (scale * (SIZES / SIZES[-1]) ** -exponent + floor)[None]
    laws = fit_power_laws(SIZES, errors, unit * np.array([1.0, 2.0, 3.0, 4.0]), floor=True)
    assert laws.at(2.0) == pytest.approx(scale * 2.0**-exponent + floor, rel=1e-3)
    assert laws.floor[0] == pytest.approx(floor, abs=1e-3)
    bare = fit_power_laws(SIZES, errors - floor, np.ones(4), floor=False)
    assert (bare.scale[0], bare.exponent[0], bare.floor[0]) == pytest.approx((scale, exponent, 0.0), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_law_is_better_than_the_fitted_one_and_none_rises(seed: int, floor: bool) -> None:
    rng = np.random.default_rng(seed)
    errors, weights = rng.random((5, 4)), rng.random(4) + 0.1
    laws = fit_power_laws(SIZES, errors, weights, floor=floor)
    assert (laws.scale >= 0).all() and (laws.floor >= 0).all() and (laws.reduction(2.0) >= 0).all()

    def residuals(of: PowerLaws) -> np.ndarray:
        fitted = np.stack([of.at(size) for size in SIZES / SIZES[-1]], axis=1)
        return np.asarray(((errors - fitted) ** 2) @ weights)

    others = PowerLaws(scale=rng.random(5), exponent=rng.choice(EXPONENTS, 5), floor=rng.random(5) if floor else np.zeros(5))
    assert (residuals(laws) <= residuals(others) + 1e-9).all()


def test_errors_of_zero_and_level_curves_promise_nothing() -> None:
    for errors in (np.zeros(4), np.full(4, 0.1), np.array([0.1, 0.2, 0.3, 0.4])):
        found = extrapolate(SIZES, errors, np.tile(errors, (10, 1)))
        gain = found.gain(0.1, np.full(10, 0.1), 0.95)
        assert gain == pytest.approx({"value": 0, "low": 0, "high": 0}), errors
    with pytest.raises(ValueError, match="at least three sizes, got 2"):
        extrapolate(SIZES[:2], errors[:2], np.tile(errors[:2], (10, 1)))


def test_the_interval_covers_planted_laws_with_and_without_a_floor() -> None:
    for law in ((0.02, 0.5, 0.0), (0.01, 1.0, 0.01)):
        found = coverage(law, deviation=0.15, simulations=30)
        # 26 of 30 is the 5% quantile of the binomial if the coverage is 95%.
        assert found["coverage"]["both"] >= 26 / 30, found
        assert found["mean_width"] < 2 * found["gain"], "an interval that says nothing covers everything"
    assert found["coverage"]["without_floor"] < 0.5, "the law without a floor does not see one"
