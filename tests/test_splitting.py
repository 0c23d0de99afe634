"""Near-duplicate groups and splits that keep them together."""

from __future__ import annotations

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.data.near_duplicates import fingerprints, mask, near_duplicate_groups
from ballast.data.splitting import folds_by_hash, nested_subsample, stratified_grouped_folds, stratified_grouped_test
from ballast.exceptions import UserError


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
    sizes += [(label, 1) for label in range(classes) for _ in range(4)]
    labels = np.concatenate([np.full(size, label) for label, size in sizes])
    groups = np.repeat(np.arange(len(sizes)), [size for _, size in sizes])
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return labels[order], groups[order]


def split(labels: np.ndarray, groups: np.ndarray, share: float, n_folds: int, seed: int) -> np.ndarray:
    """The fold (n,) of each row, -1 in the test set."""
    names = [str(label) for label in range(labels.max() + 1)]
    test = stratified_grouped_test(labels, groups, share, n_folds, seed, names)
    folds = np.full(len(labels), -1)
    folds[~test] = stratified_grouped_folds(labels[~test], groups[~test], n_folds, seed, names)
    return folds


@given(rows_in_groups(), st.integers(2, 3), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_no_group_is_separated_and_every_class_is_everywhere(
    rows: tuple[np.ndarray, np.ndarray], n_folds: int, seed: int
) -> None:
    labels, groups = rows
    folds = split(labels, groups, 0.2, n_folds, seed)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    for label in range(labels.max() + 1):
        assert set(folds[labels == label]) == set(range(-1, n_folds))
    np.testing.assert_array_equal(folds, split(labels, groups, 0.2, n_folds, seed))


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_classes_are_the_same_in_test_in_every_fold_and_in_a_subsample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(4000), rng.integers(1, 4, size=4000))
    labels = (rng.random(4000) < 0.13).astype(int)[groups]
    folds = split(labels, groups, 0.2, 8, seed)
    for label in (0, 1):
        of_class = labels == label
        assert abs((folds[of_class] == -1).mean() - 0.2) < 3 / of_class.sum()
        for fold in range(8):
            assert abs((folds[of_class] == fold).mean() - 0.1) < 3 / of_class.sum()
    for share in (0.25, 0.5):
        chosen = nested_subsample(labels, groups, share, seed, ["ham", "spam"])
        for label in (0, 1):
            assert abs(chosen[labels == label].mean() - share) < 3 / (labels == label).sum()


def test_the_seed_changes_test_and_folds() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    first, other = (split(labels, np.arange(100), 0.2, 4, seed) for seed in (0, 1))
    assert not np.array_equal(first == -1, other == -1)
    both = (first >= 0) & (other >= 0)
    assert not np.array_equal(first[both], other[both])


def test_a_fold_by_hash_depends_on_the_group_alone_and_folds_are_level() -> None:
    groups = near_duplicate_groups(
        pa.chunked_array([[f"text {word}" for word in map("".join, product("abcdefghij", repeat=4))]])
    )
    folds = folds_by_hash(groups, 8)
    np.testing.assert_array_equal(folds[::-7], folds_by_hash(groups[::-7].copy(), 8))
    assert np.bincount(folds, minlength=8).min() > 0.9 * len(groups) / 8
    # Whether a group is in test follows from the upper bits of its fingerprint, its fold from the lower ones.
    upper = groups.view(np.uint64).astype(np.float64) / 2.0**64 >= 0.8
    assert np.bincount(folds[upper], minlength=8).min() > 0.8 * upper.sum() / 8


@pytest.mark.parametrize("least", [3, 5, 9])
def test_a_class_with_too_few_groups_is_an_error_that_counts_them(least: int) -> None:
    labels = np.repeat([0, 1], [50, 2 * (least - 1)])
    groups = np.concatenate([np.arange(50), 50 + np.arange(2 * (least - 1)) // 2])
    names = ["ham", "spam"]
    counts = f"class 'spam' has {2 * (least - 1)} messages in {least - 1} groups of near duplicates"
    with pytest.raises(UserError, match=f"{counts}; a test split and {least - 1} folds need at least {least} groups"):
        stratified_grouped_test(labels, groups, 0.2, least - 1, 0, names)
    with pytest.raises(UserError, match=f"{counts}; {least} folds need at least {least} groups of each class"):
        stratified_grouped_folds(labels, groups, least, 0, names)


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
