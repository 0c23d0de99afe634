"""Units of independent messages, splits by time, crossing messages, and the test of two samples' class shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.data.expected_shares import same_shares
from ballast.data.units import crossing, split_by_time, united

KEYS = st.one_of(st.none(), st.sampled_from("abcdef"))


def components(groups: list[int], keys: list[str | None]) -> list[frozenset[int]]:
    """The rows that are linked with each row, by repeated joining."""
    linked = [frozenset([row]) for row in range(len(groups))]
    for _ in groups:
        linked = [
            frozenset().union(
                *(
                    linked[other]
                    for other in range(len(groups))
                    if groups[other] in {groups[member] for member in linked[row]}
                    or (keys[other] is not None and keys[other] in {keys[member] for member in linked[row]})
                )
            )
            for row in range(len(groups))
        ]
    return linked


@given(st.lists(st.tuples(st.integers(-4, 8), KEYS), min_size=1, max_size=14))
@settings(max_examples=60)
def test_units_are_the_connected_components(rows: list[tuple[int, str | None]]) -> None:
    groups, keys = [group for group, _ in rows], [key for _, key in rows]
    units = united(np.array(groups), np.array(keys, dtype=object))
    linked = components(groups, keys)
    for row in range(len(rows)):
        assert set(np.flatnonzero(units == units[row])) == linked[row]
        # The name of a unit is the group of its first message, so it stays the same if messages are appended.
        assert units[row] == groups[min(linked[row])]


def test_units_without_keys_are_the_groups() -> None:
    groups = np.array([5, -2, 5, 7])
    np.testing.assert_array_equal(united(groups, np.full(4, None, dtype=object)), groups)
    assert len(united(np.empty(0, dtype=np.int64), np.empty(0, dtype=object))) == 0


@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=80).filter(lambda times: len(set(times)) >= 3),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.sampled_from([0.1, 0.2, 0.5]),
)
@settings(max_examples=150)
def test_a_split_by_time_keeps_the_order_and_the_ties(values: list[int], validation: float, test: float) -> None:
    times = np.array(values)
    codes = split_by_time(times, validation, test)
    assert set(codes) == {0, 1, 2}
    for code in (0, 1):
        assert times[codes == code].max() < times[codes == code + 1].min()
    # No other cut between two times is closer to the share of test.
    later = [np.mean(times >= start) for start in sorted(set(values))[2:]]
    assert abs(np.mean(codes == 2) - test) == pytest.approx(min(abs(share - test) for share in later))


def test_a_split_by_time_has_the_shares_without_ties() -> None:
    codes = split_by_time(np.random.default_rng(0).permutation(1000), validation=0.1, test=0.2)
    np.testing.assert_array_equal(np.bincount(codes), [700, 100, 200])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=40))
def test_without_crossing_rows_no_unit_is_in_two_splits(rows: list[tuple[int, int]]) -> None:
    units, splits = np.array([unit for unit, _ in rows]), np.array([split for _, split in rows])
    late = crossing(units, splits)
    for unit in np.unique(units):
        inside = units == unit
        assert len(set(splits[inside & ~late])) == 1
        np.testing.assert_array_equal(late[inside], splits[inside] < splits[inside].max())
    assert not late[splits == 2].any()


def test_the_test_of_shares_is_right_about_planted_shares() -> None:
    """1% false alarms at most if the shares are equal; different shares are found."""
    rng = np.random.default_rng(0)
    for shares in (np.array([0.99, 0.01]), np.array([0.5, 0.3, 0.15, 0.05]), np.full(150, 1 / 150)):
        # The chi-square test of 150 classes is an approximation, at 10 messages of a class in test.
        alarms = [same_shares(rng.multinomial(4000, shares), rng.multinomial(1500, shares)).p < 0.01 for _ in range(400)]
        assert np.mean(alarms) < 0.03
    moved = [same_shares(rng.multinomial(4000, [0.99, 0.01]), rng.multinomial(1000, [0.96, 0.04])).p for _ in range(100)]
    assert np.mean(np.array(moved) < 0.01) > 0.95


def test_the_test_of_shares_needs_two_classes() -> None:
    assert same_shares(np.array([9, 0]), np.array([4, 0])).p == 1.0
