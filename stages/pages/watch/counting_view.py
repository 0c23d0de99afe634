"""Why classify-and-count is biased: an example with the rates of the deployed model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.pages.drawing import Axis, points
from stages.pages.watch.timeline_view import share_ticks
from stages.pages.watch.windows import Window, by_prior, share
from stages.pages.words import percent


def predicted_share(rates: Mapping[str, Mapping[str, float]], prior: Mapping[str, float], label: str) -> float:
    """Expected share of messages predicted as a label, given rates[true][predicted] and a prior."""
    return sum(prior[true] * rates[true][label] for true in rates)


def with_share(prior: Mapping[str, float], label: str, value: float) -> dict[str, float]:
    """A prior in which a label has another share and the others keep their proportions."""
    rest = sum(other_share for name, other_share in prior.items() if name != label)
    others = len(prior) - 1
    return {
        name: value if name == label else (1 - value) * (own_share / rest if rest > 0 else 1 / others)
        for name, own_share in prior.items()
    }


def rows_by_error(rates: Mapping[str, Mapping[str, float]], prior: Mapping[str, float]) -> list[dict[str, Any]]:
    """True and expected predicted share of each label at a prior, and their difference in points; largest error first."""
    rows: list[dict[str, Any]] = []
    for label in by_prior(list(rates), prior):
        counted = predicted_share(rates, prior, label)
        # Adding 0 turns -0 into 0.
        error = round(100 * (counted - prior[label]), 1) + 0.0
        rows.append({"label": label, "true": prior[label], "counted": counted, "points": error})
    return sorted(rows, key=lambda row: -abs(row["points"]))


def counting(window: Window, axis: Axis) -> dict[str, Any]:
    """Bias of classify-and-count by the rates of the window's model, for its rarest class and for all classes."""
    rates, prior = window["rates"], window["reference_prior"]
    order = by_prior(window["labels"], prior)
    label = order[0]
    # The second example is the window's own share if it clearly differs, else twice the deployed share.
    estimate = share(window, "estimated_prior", label)
    differs = estimate is not None and abs(estimate - prior[label]) > prior[label] / 4
    other = estimate if estimate is not None and differs else min(0.9, 2 * prior[label])
    at_zero, at_top, at_other = (
        predicted_share(rates, with_share(prior, label, value), label) for value in (0.0, axis.high, other)
    )
    at_prior = predicted_share(rates, prior, label)
    # Both axes of the chart are the same. They clip a line that leaves the chart.
    ends = [(0.0, at_zero), (axis.high, at_top)]
    return {
        "label": label,
        "model": window["model"],
        "recall": percent(rates[label][label]),
        "false_positive_rate": percent(at_zero),
        "rest": order[1] if len(order) == 2 else "all other",
        "prior": percent(prior[label]),
        "at_prior": percent(at_prior),
        "other": percent(other),
        "at_other": percent(at_other),
        "same": percent(at_prior) == percent(prior[label]),
        "line": points([true / axis.high for true, _ in ends], [counted / axis.high for _, counted in ends]),
        "dot": {"x": axis.at(prior[label]), "y": 100 - axis.at(at_prior)},
        "ticks": share_ticks(axis),
        "rows": rows_by_error(rates, prior),
    }
