"""Axes, intervals and bins of the charts, and the sample behind the drift page."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from stages.pages.drawing import Axis, joined, nice_step, share_axis, shared_axis

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from stages.pages.evidently import with_shares


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.999, 0.001], [1.0, 0.0]])
def test_the_reference_has_the_production_shares_and_no_row_twice(shares: list[float]) -> None:
    classes = np.repeat([0, 1], [400, 100])
    rows = with_shares(classes, np.array(shares), 10_000, np.random.default_rng(0))
    found = np.bincount(classes[rows], minlength=2)
    assert len(set(rows.tolist())) == len(rows)
    assert found / len(rows) == pytest.approx(shares, abs=0.005)
    assert np.any(found >= np.array([400, 100]) - 1), "no larger sample has these shares"
    few = with_shares(classes, np.array(shares), 50, np.random.default_rng(0))
    assert len(few) == pytest.approx(50, abs=1) and np.bincount(classes[few], minlength=2).min() >= 1


def estimate(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.mark.parametrize(
    ("values", "loss", "off"),
    [
        ([0.96, 0.95, 0.94, 0.0], False, {0.0}),
        ([0.96, 0.95, 0.94, 0.0, 0.0], False, {0.0}),
        ([0.96, 0.9, 0.8, 0.7], False, set()),
        ([0.03, 0.05, 0.04, 0.4], True, {0.4}),
        ([0.5], False, set()),
        ([0.0, 0.0], False, set()),
    ],
)
def test_an_axis_leaves_out_only_what_is_far_behind(values: list[float], loss: bool, off: set[float]) -> None:
    axis = shared_axis([estimate(value) for value in values], loss=loss, limit=1)
    assert {value for value in values if axis.off(value)} == off
    kept = [estimate(value) for value in values if value not in off]
    assert axis.low - 1e-9 <= max(0, min(each["low"] for each in kept))
    assert axis.high + 1e-9 >= max(each["high"] for each in kept)
    assert axis.low in axis.ticks and len(axis.ticks) >= 2 and list(axis.ticks) == sorted(set(axis.ticks))


@pytest.mark.parametrize(("value", "loss", "limit"), [(1.0, False, 1), (0.0, True, np.inf), (0.0, False, 1), (0.5, False, 1)])
def test_equal_estimates_still_have_an_axis(value: float, loss: bool, limit: float) -> None:
    axis = shared_axis([{"value": value, "low": value, "high": value}] * 3, loss=loss, limit=limit)
    assert axis.low < axis.high and axis.low <= value <= axis.high and 0 <= axis.at(value) <= 100


def test_places_on_axes() -> None:
    axis = Axis(low=0.5, high=1)
    assert [axis.at(value) for value in (0.5, 0.75, 1, 0.2, 1.4)] == [0, 50, 100, 0, 100]
    assert [axis.off(value) for value in (0.2, 0.5, 1.4)] == ["low", "", "high"]
    shares = Axis(low=0.01, high=0.99, log_odds=True)
    assert shares.at(0.5) == 50 and shares.at(0.1) == pytest.approx(50 - 50 * math.log(9) / math.log(99), abs=0.01)
    for found in ([0.126], [0.02, 0.71], [0.0, 1.0], [1e-6], [0.5, 0.5]):
        axis = share_axis(found)
        places = [axis.at(tick) for tick in axis.ticks]
        assert len(places) >= 2 and min(np.diff(places)) >= 10.9
        assert all(axis.low <= max(1e-4, min(1 - 1e-4, share)) <= axis.high for share in found)
    assert [nice_step(span, 4) for span in (1, 0.12, 4, 0.8)] == [0.5, 0.05, 1, 0.2]


def test_small_bins_are_joined_without_losing_a_message() -> None:
    bins = {"mean_probability": [0.01, 0.3, 0.5, 0.7, 0.99], "share": [0.0, 0.5, 1.0, 1.0, 1.0], "messages": [90, 2, 3, 6, 4]}
    found = joined(bins)
    assert found["messages"] == [90, 15]
    assert found["share"] == pytest.approx([0, 14 / 15])
    assert found["mean_probability"][1] == pytest.approx((0.3 * 2 + 0.5 * 3 + 0.7 * 6 + 0.99 * 4) / 15)
    assert joined({key: values[:1] for key, values in bins.items()})["messages"] == [90]
    assert joined({"mean_probability": [0.1, 0.9], "share": [0.0, 1.0], "messages": [2, 3]})["messages"] == [5]
