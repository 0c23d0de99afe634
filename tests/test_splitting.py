"""Near-duplicate groups and splits that keep them together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.errors import UserError
from ballast.near_duplicates import fingerprints, mask, near_duplicate_groups
from ballast.splitting import SPLITS, stratified_grouped_split

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Call 0800 123 now!", "call 0900-999 NOW", True),
        ("You won £100", "you WON £2,000!!!", True),
        ("Straße 5", "STRAßE", True),
        ("Call now", "Call me now", False),
        ("123", "456 !!", False),
        ("123", "123", True),
        ("नमस्ते 5", "नमस्ते", True),
    ],
)
def test_near_duplicates(first: str, second: str, same: bool) -> None:
    groups = near_duplicate_groups(pa.chunked_array([[first, second]]))
    assert (groups[0] == groups[1]) == same


@given(st.lists(st.text(max_size=8), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_groups_are_those_of_the_masked_texts(texts: list[str]) -> None:
    column = pa.chunked_array([pa.array(texts, pa.large_string())])
    masked = mask(column.combine_chunks()).to_pylist()
    groups = near_duplicate_groups(column)
    for one in range(len(texts)):
        assert [g == groups[one] for g in groups] == [m == masked[one] for m in masked]
    exact = fingerprints(column)
    assert [e == exact[0] for e in exact] == [text == texts[0] for text in texts]


@st.composite
def rows_in_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    classes = draw(st.integers(2, 5))
    sizes = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(1, 6)), min_size=0, max_size=60))
    sizes += [(label, 1) for label in range(classes) for _ in range(3)]
    labels = np.concatenate([np.full(size, label) for label, size in sizes])
    groups = np.repeat(np.arange(len(sizes)), [size for _, size in sizes])
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return labels[order], groups[order]


@given(rows_in_groups(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_no_group_is_separated_and_every_class_is_everywhere(rows: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, groups = rows
    names = [str(label) for label in range(labels.max() + 1)]
    split = stratified_grouped_split(labels, groups, FRACTIONS, seed, names)
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
    for label in range(len(names)):
        assert set(split[labels == label]) == set(range(len(SPLITS)))
    np.testing.assert_array_equal(split, stratified_grouped_split(labels, groups, FRACTIONS, seed, names))


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_classes_and_splits_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(4000), rng.integers(1, 4, size=4000))
    labels = (rng.random(4000) < 0.13).astype(int)[groups]
    split = stratified_grouped_split(labels, groups, FRACTIONS, seed, ["ham", "spam"])
    for at, name in enumerate(SPLITS):
        for label in (0, 1):
            of_class = labels == label
            assert abs((split[of_class] == at).mean() - FRACTIONS[name]) < 3 / of_class.sum()


def test_the_seed_changes_the_split() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    first, other = (stratified_grouped_split(labels, np.arange(100), FRACTIONS, seed, ["a", "b"]) for seed in (0, 1))
    assert not np.array_equal(first, other)


def test_a_class_with_fewer_groups_than_splits_is_an_error_that_counts_them() -> None:
    labels = np.array([0] * 50 + [1] * 9)
    groups = np.concatenate([np.arange(50), np.repeat([50, 51], [5, 4])])
    with pytest.raises(UserError, match="class 'spam' has 9 messages in 2 groups"):
        stratified_grouped_split(labels, groups, FRACTIONS, 0, ["ham", "spam"])
