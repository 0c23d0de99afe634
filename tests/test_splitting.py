"""Near-duplicate groups and splits that keep them together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.data.near_duplicates import fingerprints, mask, near_duplicate_groups
from ballast.data.splitting import SPLITS, nested_subsample, stratified_grouped_fold, stratified_grouped_split
from ballast.exceptions import UserError

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


@given(rows_in_groups(), st.integers(2, 3), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_folds_partition_the_groups_and_every_class_is_everywhere(
    rows: tuple[np.ndarray, np.ndarray], count: int, seed: int
) -> None:
    labels, groups = (np.concatenate([each, each + at]) for each, at in zip(rows, (0, 1000), strict=True))
    names = [str(label) for label in range(labels.max() + 1)]
    tested = np.zeros(len(labels), dtype=int)
    for index in range(count):
        split = stratified_grouped_fold(labels, groups, count, index, 0.1, seed, names)
        tested += split == SPLITS.index("test")
        for group in np.unique(groups):
            assert len(set(split[groups == group])) == 1
        for label in range(len(names)):
            assert set(split[labels == label]) == set(range(len(SPLITS)))
    assert set(tested) == {1}


@pytest.mark.parametrize("seed", range(3))
def test_folds_and_shares_keep_the_shares_of_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(4000), rng.integers(1, 4, size=4000))
    labels = (rng.random(4000) < 0.13).astype(int)[groups]
    for index in range(5):
        split = stratified_grouped_fold(labels, groups, 5, index, 0.1, seed, ["ham", "spam"])
        for at, share in enumerate((0.7, 0.1, 0.2)):
            for label in (0, 1):
                assert abs((split[labels == label] == at).mean() - share) < 6 / (labels == label).sum()
    for share in (0.25, 0.5):
        kept = nested_subsample(labels, groups, share, seed, ["ham", "spam"])
        for label in (0, 1):
            assert abs(kept[labels == label].mean() - share) < 3 / (labels == label).sum()


@given(rows_in_groups(), st.lists(st.floats(0.01, 1), min_size=2, max_size=4), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_shares_are_nested_and_separate_no_group(rows: tuple[np.ndarray, np.ndarray], shares: list[float], seed: int) -> None:
    labels, groups = rows
    names = [str(label) for label in range(labels.max() + 1)]
    previous = np.zeros(len(labels), dtype=bool)
    for share in [*sorted(shares), 1.0]:
        kept = nested_subsample(labels, groups, share, seed, names)
        assert not (previous & ~kept).any()
        assert set(labels[kept]) == set(labels)
        assert not set(groups[kept]) & set(groups[~kept])
        previous = kept
    assert previous.all()


@pytest.mark.parametrize(("count", "least"), [(2, 4), (3, 3), (5, 5)])
def test_more_folds_than_groups_of_a_class_is_an_error_that_counts_them(count: int, least: int) -> None:
    labels = np.repeat([0, 1], [50, least - 1])
    with pytest.raises(
        UserError, match=f"in {least - 1} groups of near duplicates; {count} folds need at least {least} groups"
    ):
        stratified_grouped_fold(labels, np.arange(len(labels)), count, 0, 0.1, 0, ["ham", "spam"])
