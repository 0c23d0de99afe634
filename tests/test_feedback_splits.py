"""The splits of labelled production messages: labels of the labelling queue leave the test metrics unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from stages.production.feedback import splits_of

TEST = 0.2


def test_the_labels_of_the_queue_leave_the_test_metrics_unbiased() -> None:
    """Of difficult messages, the model decides half correctly; others, always. The queue asks for many difficult ones."""
    rng = np.random.default_rng(0)
    asked = np.repeat([False, True], [8000, 4000])
    difficult = rng.random(12_000) < np.where(asked, 0.7, 0.1)
    correct = ~difficult | (rng.random(12_000) < 0.5)
    groups = rng.integers(-(2**63), 2**63, 12_000)
    test = splits_of(groups, asked, {}, TEST) == "test"
    assert not test[asked].any() and test[~asked].mean() == pytest.approx(TEST, abs=0.02)
    assert correct[test].mean() == pytest.approx(0.95, abs=0.02)
    as_before = splits_of(groups, np.zeros(12_000, dtype=bool), {}, TEST) == "test"
    assert correct[as_before].mean() < 0.9, "the queue is not difficult, so that this test shows nothing"


def test_a_group_has_one_split_and_keeps_that_of_earlier_messages() -> None:
    highest, lowest = 2**63 - 1, 0
    # As unsigned numbers, negative fingerprints are the highest.
    groups = np.array([-1, -1, -2, lowest, highest, -3])
    asked = np.array([True, False, False, False, True, True])
    assert splits_of(groups, asked, {-3: "test", lowest: "test"}, TEST).tolist() == [
        "train", "train", "test", "test", "train", "test",
    ]  # fmt: skip
