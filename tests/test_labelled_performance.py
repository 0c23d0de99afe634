"""What the labels of several windows show: which windows and labels count, and where the estimate without labels is wrong."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from stages.production.labelled import disagreements, labelled_performance

LABELS = ["ham", "spam"]


def window(name: str, **changes: Any) -> dict[str, Any]:
    """A window with 40 messages to label of 220: 20 of 200 predicted as ham, all 20 predicted as spam."""
    rows = [
        {
            "id": f"{name}-{at}",
            "predicted": "ham" if at < 20 else "spam",
            "posteriors": {"ham": 0.9, "spam": 0.1} if at < 20 else {"ham": 0.1, "spam": 0.9},
            "stratum": "common-1" if at < 20 else "rare-1",
            "inclusion_probability": 0.1 if at < 20 else 1.0,
            "size": 1,
        }
        for at in range(40)
    ]
    return {"window": name, "model": "0001", "to_label": rows, **changes}


def feedback(name: str, count: int = 40, spam: int = 18) -> pd.DataFrame:
    """Labels of the last `count` messages of a window: 1 message predicted as ham is spam, and `spam` of those predicted so."""
    label = ["spam"] + ["ham"] * 19 + ["spam"] * spam + ["ham"] * (20 - spam)
    return pd.DataFrame({"id": [f"{name}-{at}" for at in range(40)], "label": label}).tail(count)


def shown(windows: list[dict[str, Any]], labels: pd.DataFrame) -> dict[str, Any] | None:
    return labelled_performance("0001", LABELS, windows, labels, 0.95)


def test_labels_count_for_the_messages_that_they_stand_for() -> None:
    found = shown([window("b"), window("a")], pd.concat([feedback("a"), feedback("b")]))
    assert found is not None and (found["n"], found["windows"]) == (80, ["a", "b"])
    assert found["labelled"] == {"ham": 42, "spam": 38}
    # 36 hits, 4 false alarms, and 2 misses that stand for 10 messages each.
    assert found["metrics"]["spam.precision"] == pytest.approx({"value": 0.9, "low": 0.9, "high": 0.9})
    assert found["metrics"]["spam.recall"]["value"] == pytest.approx(36 / 56)
    assert found["metrics"]["ham.precision"]["value"] == pytest.approx(380 / 400)


def test_windows_of_other_versions_and_windows_with_few_labels_do_not_count() -> None:
    labels = pd.concat([feedback("a"), feedback("b"), feedback("c", count=19)])
    old = [{"id": "d-1", "group": 1}]
    windows = [window("a"), window("b", model="0002"), window("c"), window("d", to_label=old), window("e", to_label=[])]
    found = shown(windows, labels)
    assert found is not None and (found["n"], found["windows"]) == (40, ["a"])
    assert shown(windows[1:], labels) is None and shown([], labels) is None
    assert shown([window("a")], feedback("a").assign(label="unknown")) is None
    # Without a label of the messages predicted as ham, recall would be 1.
    assert shown([window("c")], feedback("c", count=20)) is None
    half = shown([window("c")], feedback("c", count=25))
    assert half is not None and half["n"] == 25 and half["metrics"]["spam.recall"]["low"] < 0.9


def test_only_recalls_that_no_interval_reconciles_disagree() -> None:
    labelled = {"metrics": {"spam.recall": {"value": 0.7, "low": 0.6, "high": 0.8}, "ham.recall": None}}
    for low, expected in ((0.79, []), (0.81, ["spam.recall"])):
        estimated = {"spam.recall": {"value": 0.9, "low": low, "high": 0.95}, "ham.recall": {"value": 1, "low": 1, "high": 1}}
        assert disagreements(labelled, estimated) == expected
    assert disagreements(None, {}) == disagreements(labelled, None) == []
