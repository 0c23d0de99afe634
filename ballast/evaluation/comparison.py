"""Compare techniques with the reference: paired bootstrap, McNemar's test, Holm's correction, verdict."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy.special import ndtr
from scipy.stats import binom

from ballast.evaluation.bootstrap import MINIMUM_SEEDS, Draws, seed_noise

NO_DIFFERENCE = "no difference shown"
Name = TypeVar("Name", bound=Hashable)


def with_seed_variation(techniques: Mapping[str, Draws]) -> dict[str, Draws]:
    """Add the variation between seeds to the bootstrap draws of each technique.

    A standard deviation of three seeds is often too small by chance. So each technique gets its own or the pooled one of all
    techniques, whichever is larger, with its degrees of freedom. Techniques that do not depend on the seed stay unchanged. The
    noise of techniques is independent, because their trainings are.
    """
    varying = {name: draws for name, draws in techniques.items() if any(np.ptp(values) > 0 for values in draws.seeds.values())}
    degrees = sum(len(draws.correct) - 1 for draws in varying.values())
    pooled = {
        metric: np.sqrt(sum(((draws.seeds[metric] - draws.point(metric)) ** 2).sum() for draws in varying.values()) / degrees)
        for metric in next(iter(techniques.values())).values
        if degrees
    }
    varied = dict(techniques)
    for name, draws in varying.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        seeds = len(draws.correct)
        values = {}
        for metric, drawn in draws.values.items():
            own = float(np.std(draws.seeds[metric], ddof=1))
            deviation, freedom = (own, seeds - 1) if own > pooled[metric] else (pooled[metric], degrees)
            values[metric] = drawn + seed_noise(deviation, seeds, len(drawn), rng, freedom)
        varied[name] = replace(draws, values=values)
    return varied


def bootstrap_p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of no difference from bootstrap differences (resamples,) (Davison and Hinkley 1997, 4.4).

    If all differences are on one side of 0, a normal tail is used. The smallest p-value that the resamples can give would
    otherwise be too large after a correction for many techniques.
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    resolved = min(1.0, 2 * (1 + beyond) / (len(differences) + 1))
    deviation = float(differences.std())
    if beyond or deviation == 0:
        return float(resolved)
    return float(min(resolved, 2 * ndtr(-abs(differences.mean()) / deviation)))


def mcnemar_p_value(correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """McNemar's mid-p value for two classifiers of the same messages, from (n,) booleans each (Fagerland et al. 2013)."""
    gained = int((correct & ~reference_correct).sum())
    lost = int((~correct & reference_correct).sum())
    discordant, fewer = gained + lost, min(gained, lost)
    if not discordant:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)))


def mcnemar_p_value_over_seeds(correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """One p-value from all seeds (S, n): twice the median of their p-values (Meinshausen et al. 2009)."""
    values = [mcnemar_p_value(own, other) for own, other in zip(correct, reference_correct, strict=False)]
    return values[0] if len(values) == 1 else float(min(1.0, 2 * np.median(values)))


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """P-values adjusted for multiple testing (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    names = sorted(p_values, key=lambda name: p_values[name])
    remaining = np.arange(len(names), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(remaining * np.array([p_values[name] for name in names])))
    by_name = dict(zip(names, adjusted.tolist(), strict=True))
    return {name: by_name[name] for name in p_values}


def seeds_in_words(seeds: int) -> str:
    """A number of seeds that is too small for a claim, in words."""
    return {1: "one seed", 2: "two seeds"}.get(seeds, f"{seeds} seeds")


def verdict(difference: float, adjusted_p: float, seeds: int, confidence: float, *, higher_is_better: bool) -> str:
    """Return better, worse or no difference shown; with fewer than three seeds, inconclusive."""
    if seeds < MINIMUM_SEEDS:
        return f"{seeds_in_words(seeds)}: inconclusive"
    if adjusted_p >= 1 - confidence:
        return NO_DIFFERENCE
    return "better" if (difference > 0) == higher_is_better else "worse"


def compare(
    techniques: Mapping[str, Draws], reference: str, metrics: Sequence[str], confidence: float, losses: frozenset[str]
) -> dict[str, dict[str, object]]:
    """Compare all techniques with the reference: differences with intervals and verdicts. P-values are adjusted per metric.

    The draws of all techniques use the same resamples of the test groups, so differences are paired. They include the
    variation between seeds (`with_seed_variation`).
    """
    others = [name for name in techniques if name != reference]
    base = techniques[reference]
    comparisons: dict[str, dict[str, object]] = {name: {"metrics": {}} for name in others}
    mcnemar = {name: mcnemar_p_value_over_seeds(techniques[name].correct, base.correct) for name in others}
    for name, adjusted in holm(mcnemar).items():
        comparisons[name]["mcnemar"] = {"p": mcnemar[name], "p_adjusted": adjusted}
    for metric in metrics:
        differences = {name: techniques[name].values[metric] - base.values[metric] for name in others}
        p_values = {name: bootstrap_p_value(difference) for name, difference in differences.items()}
        for name, adjusted in holm(p_values).items():
            value = techniques[name].point(metric) - base.point(metric)
            low, high = np.quantile(differences[name], [(1 - confidence) / 2, (1 + confidence) / 2])
            seeds = min(len(techniques[name].correct), len(base.correct))
            better = metric not in losses
            entry = {
                "difference": value,
                "low": float(min(low, value)),
                "high": float(max(high, value)),
                "p": p_values[name],
                "p_adjusted": adjusted,
                "verdict": verdict(value, adjusted, seeds, confidence, higher_is_better=better),
            }
            comparisons[name]["metrics"][metric] = entry  # type: ignore[index]
    return comparisons


REFERENCE = "baseline"


def reference_of(names: list[str]) -> str:
    """The technique that all others are compared with: the baseline, or the first one."""
    return REFERENCE if REFERENCE in names else names[0]
