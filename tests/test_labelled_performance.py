"""What the labels of several windows show: which labels count, and where they replace the estimate without labels."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from ballast.monitoring.estimated_performance import Estimated
from stages.production.labelled import decided_by_labels, disagreements, estimate_over, labelled_performance

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
    assert found["metrics"]["spam.f1"]["value"] == pytest.approx(2 * 36 / (56 + 40))


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


def estimated(name: str, *, recall: tuple[float, float, float], precision: tuple[float, float, float]) -> dict[str, Any]:
    """A window of 1,000 messages with estimates without labels: value, low and high."""
    ends = ("value", "low", "high")
    metrics = {"spam.recall": dict(zip(ends, recall, strict=True)), "spam.precision": dict(zip(ends, precision, strict=True))}
    metrics["spam.share"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    performance = {"metrics": metrics, "withheld": None, "below_floor": {}}
    return window(name, n=1000, estimated_prior={"ham": 0.8, "spam": 0.2}, estimated_performance=performance)


LABELLED: dict[str, Any] = {
    "windows": ["a", "b"],
    "metrics": {
        "spam.recall": {"value": 0.7, "low": 0.6, "high": 0.8},
        "spam.precision": {"value": 0.9, "low": 0.88, "high": 0.92},
        "ham.recall": None,
    },
}


@pytest.mark.parametrize(("low", "differs"), [(0.7, False), (0.8, True)])
def test_an_estimate_disagrees_if_the_interval_of_the_difference_excludes_0(low: float, differs: bool) -> None:
    """The intervals 0.6 to 0.8 and 0.79 to 0.95 overlap, but that of their difference, -0.2, ends at -0.05."""
    watched = estimated("c", recall=(0.9, low, 0.95), precision=(0.5, 0.4, 0.6))
    windows = [estimated(name, recall=(0.7, 0.6, 0.8), precision=(0.9, 0.85, 0.95)) for name in "ab"]
    # Precision depends on the prior, so that of another window says nothing.
    assert disagreements(LABELLED, watched, [*windows, watched]) == (["spam.recall"] if differs else [])


def test_precision_is_compared_in_the_windows_of_the_labels() -> None:
    watched = estimated("c", recall=(0.7, 0.6, 0.8), precision=(0.9, 0.85, 0.95))
    windows = [estimated("a", recall=(0.7, 0.6, 0.8), precision=(0.5, 0.45, 0.6))]
    windows.append(estimated("b", recall=(0.7, 0.6, 0.8), precision=(0.9, 0.85, 0.95)) | {"n": 1})
    assert disagreements(LABELLED, watched, [*windows, watched]) == ["spam.precision"]
    pooled = estimate_over(windows, "spam", "precision")
    assert pooled is not None and (pooled.value, pooled.low) == pytest.approx((0.5004, 0.4504), abs=1e-4)
    windows[1]["estimated_performance"] = {"metrics": None, "withheld": "a reason", "below_floor": {}}
    assert disagreements(LABELLED, watched, [*windows, watched]) == [] and estimate_over(windows, "spam", "precision") is None


def test_labels_count_where_the_estimate_without_them_is_contradicted_or_withheld() -> None:
    metrics = LABELLED["metrics"]
    watched = estimated("c", recall=(0.9, 0.85, 0.95), precision=(0.9, 0.85, 0.95))
    agreed = watched | {"labelled_performance": LABELLED | {"disagrees": []}}
    contradicted = watched | {"labelled_performance": LABELLED | {"disagrees": ["spam.recall"]}}
    assert decided_by_labels(agreed) == decided_by_labels(watched | {"labelled_performance": None}) == {}
    assert decided_by_labels(contradicted) == {"spam.recall": Estimated(**metrics["spam.recall"])}
    withheld = agreed | {"estimated_performance": {"metrics": None, "withheld": "a reason", "below_floor": {}}}
    assert set(decided_by_labels(withheld)) == {"spam.recall", "spam.precision"}
