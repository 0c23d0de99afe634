"""Positions and lengths of axes, intervals and curves in the charts of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import numpy as np
from scipy.special import logit

# A technique that is this many times farther from the best than the others is marked at the edge, to leave room for them.
OUTLYING = 2.5
# Identical estimates still need an axis with two ends.
LEAST_SPAN = 0.01
# Log-odds between the outermost share and the end of its axis.
ROOM = 0.5
# Units of a chart's square, fine enough for the enlarged part.
CURVE_UNITS = 4000
# The share of a class among fewer messages is mostly random.
LEAST_IN_BIN = 10


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale that several rows share; `log_odds` stretches both ends of a scale of shares."""

    low: float
    high: float
    ticks: tuple[float, ...] = ()
    log_odds: bool = False

    def at(self, value: float) -> float:
        """Position of a value in percent of the axis, clipped to it."""
        ends = np.array([self.low, self.high, np.clip(value, self.low, self.high)])
        low, high, place = logit(ends) if self.log_odds else ends
        return round(float(100 * (place - low) / (high - low)), 2)

    def off(self, value: float) -> str:
        """The side on which a value lies outside the axis: low, high or neither."""
        return "low" if value < self.low else "high" if value > self.high else ""

    def interval(self, estimate: Mapping[str, float]) -> dict[str, Any]:
        """Positions of a value and its interval."""
        return {
            "start": self.at(estimate["low"]),
            "end": self.at(estimate["high"]),
            "at": self.at(estimate["value"]),
            "off": self.off(estimate["value"]),
        }

    def marks(self) -> list[dict[str, Any]]:
        """Ticks with their positions."""
        return [{"at": self.at(tick), "value": tick} for tick in self.ticks]


def nice_step(span: float, count: int) -> float:
    """A round step that divides a span into about `count` parts.

    >>> nice_step(0.12, 4)
    0.05
    """
    rough = max(span, 1e-9) / count
    power = 10.0 ** floor(log10(rough))
    return float(min(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999))


def shared_axis(estimates: Sequence[Mapping[str, float]], *, loss: bool, limit: float = np.inf, count: int = 4) -> Axis:
    """An axis for estimates {value, low, high} that excludes the few that are far behind all others."""
    best = min if loss else max
    top = best(estimate["value"] for estimate in estimates)
    ranked = sorted(estimates, key=lambda estimate: abs(estimate["value"] - top))
    behind = [abs(estimate["value"] - top) for estimate in ranked]
    shown = ranked
    for rank in range(len(ranked) // 2, len(ranked) - 1):
        if behind[rank + 1] > OUTLYING * max(behind[rank], 0.02):
            shown = ranked[: rank + 1]
            break
    low = min(estimate["low"] for estimate in shown)
    high = max(estimate["high"] for estimate in shown)
    if high - low < LEAST_SPAN:
        low, high = (0.0, LEAST_SPAN) if high < LEAST_SPAN else (high - LEAST_SPAN, high)
    step = nice_step(high - low, count)
    first = max(0, floor(low / step + 1e-9))
    last = max(first + 1, ceil(high / step - 1e-9))
    ticks = [round(float(tick), 10) for tick in np.arange(first, last + 1) * step]
    # The axis of a proportion ends at 1, even between two steps.
    ticks = [tick for tick in ticks if tick < limit] + ([limit] if ticks[-1] >= limit else [])
    return Axis(low=ticks[0], high=ticks[-1], ticks=tuple(ticks))


def share_axis(shares: Sequence[float]) -> Axis:
    """A log-odds axis with a margin around the shares, and as many round shares as ticks as fit."""
    round_shares = np.array([0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5])
    possible = np.concatenate([round_shares, 1 - round_shares[-2::-1]])
    inside = np.clip(shares, 2 * possible[0], 1 - 2 * possible[0])
    low = possible[logit(possible) < logit(inside.min()) - ROOM].max(initial=possible[0])
    high = possible[logit(possible) > logit(inside.max()) + ROOM].min(initial=possible[-1])
    axis = Axis(low=float(low), high=float(high), log_odds=True)
    ticks: list[float] = []
    for tick in possible[(possible >= low) & (possible <= high)].tolist():
        if not ticks or axis.at(tick) - axis.at(ticks[-1]) >= 11:
            ticks.append(round(tick, 6))
    return Axis(low=axis.low, high=axis.high, ticks=tuple(ticks), log_odds=True)


def points(xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line through points of the unit square as an SVG path, with y upwards."""
    places = [(round(CURVE_UNITS * x), round(CURVE_UNITS * (1 - y))) for x, y in zip(xs, ys, strict=True)]
    distinct = [place for index, place in enumerate(places) if index == 0 or place != places[index - 1]]
    # A technique that gives all messages the same score has a line of length 0. Its round caps make it a dot.
    return "M" + "L".join(f"{x} {y}" for x, y in distinct) + ("h0" if len(distinct) == 1 else "")


def joined(bins: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """A calibration curve with small bins merged into their neighbours, so that every bin holds enough messages."""
    groups: list[list[int]] = [[]]
    for index in range(len(bins["messages"])):
        if sum(bins["messages"][member] for member in groups[-1]) >= LEAST_IN_BIN:
            groups.append([])
        groups[-1].append(index)
    if len(groups) > 1 and sum(bins["messages"][member] for member in groups[-1]) < LEAST_IN_BIN:
        rest = groups.pop()
        groups[-1] += rest
    messages = [sum(bins["messages"][member] for member in group) for group in groups]
    means = {
        key: [
            sum(bins[key][member] * bins["messages"][member] for member in group) / count
            for group, count in zip(groups, messages, strict=True)
        ]
        for key in ("mean_probability", "share")
    }
    return {**means, "messages": messages}


def corner_ticks(corner: float) -> list[dict[str, Any]]:
    """Ticks of an enlarged upper right corner, in percent of its sides."""
    axis = Axis(low=corner, high=1)
    step = nice_step(1 - corner, 4)
    return [
        {"at": axis.at(tick), "value": f"{tick:g}"} for tick in np.round(np.arange(corner, 1 + step / 2, step), 6) if tick <= 1
    ]


def dots(bins: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The bins of a calibration curve as dots. A larger area means more messages."""
    largest = max(bins["messages"])
    return [
        {
            "x": round(CURVE_UNITS * mean),
            "y": round(CURVE_UNITS * (1 - share)),
            "radius": round(CURVE_UNITS * (0.009 + 0.016 * (count / largest) ** 0.5)),
            "title": f"{count:,} messages with a mean probability of {mean:.3f}; a share of {share:.3f} belongs to the class",
        }
        for mean, share, count in zip(bins["mean_probability"], bins["share"], bins["messages"], strict=True)
    ]
