"""Compare techniques with the reference: paired bootstrap, equivalence, McNemar's test, Holm's correction, verdict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy.special import ndtr
from scipy.stats import binom

from ballast.evaluation.bootstrap import Draws, percentile_interval
from ballast.evaluation.power import difference_error, error_as_json, smallest_difference

BETTER, WORSE, EQUIVALENT, NOT_SHOWN = "better", "worse", "equivalent", "not shown"
# Smaller differences do not matter in practice.
MARGIN = 0.02
Name = TypeVar("Name", bound=Hashable)


def margin_for(reference: float, margin: float = MARGIN, *, higher_is_better: bool = True) -> float:
    """Largest difference that does not matter: `margin`, or half of the reference's distance from a perfect value.

    A perfect value is 1 for scores and 0 for losses.

    Examples
    --------
    >>> round(margin_for(0.9), 3), round(margin_for(0.98), 3), round(margin_for(0.004, higher_is_better=False), 3)
    (0.02, 0.01, 0.002)
    """
    distance = 1 - reference if higher_is_better else reference
    return min(margin, max(0.0, distance) / 2)


def one_sided_p_value(differences: np.ndarray, limit: float) -> float:
    """P-value of a true difference of at most `limit`, from bootstrap differences (resamples,) (Davison and Hinkley 1997, 4.4).

    If all differences are above the limit, a normal tail is used. The smallest p-value that the resamples can give would
    otherwise be too large after a correction for many techniques.
    """
    beyond = int((differences <= limit).sum())
    resolved = (1 + beyond) / (len(differences) + 1)
    deviation = float(differences.std())
    if beyond or deviation == 0:
        return float(resolved)
    return float(min(resolved, ndtr((limit - differences.mean()) / deviation)))


def bootstrap_p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of no difference from bootstrap differences (resamples,)."""
    return min(1.0, 2 * min(one_sided_p_value(differences, 0), one_sided_p_value(-differences, 0)))


def equivalence_p_value(differences: np.ndarray, margin: float) -> float:
    """P-value of a difference of `margin` or more: the larger of two one-sided ones (Schuirmann 1987).

    Examples
    --------
    >>> differences = np.random.default_rng(0).normal(0.002, 0.005, 2000)
    >>> equivalence_p_value(differences, 0.02) < 0.05, equivalence_p_value(differences, 0.005) < 0.05
    (True, False)
    """
    return max(one_sided_p_value(differences, -margin), one_sided_p_value(-differences, -margin))


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


def verdict(difference: float, p: float, equivalence_p: float, confidence: float, *, higher_is_better: bool) -> str:
    """Return better, worse, equivalent or not shown, from adjusted p-values of no difference and of no equivalence.

    A difference that is shown is better or worse, even if it is smaller than the margin.

    Examples
    --------
    >>> verdict(0.01, p=0.001, equivalence_p=1.0, confidence=0.95, higher_is_better=True)
    'better'
    >>> verdict(0.01, p=0.3, equivalence_p=0.02, confidence=0.95, higher_is_better=True)
    'equivalent'
    """
    if p < 1 - confidence:
        return BETTER if (difference > 0) == higher_is_better else WORSE
    return EQUIVALENT if equivalence_p < 1 - confidence else NOT_SHOWN


def compare(
    techniques: Mapping[str, Draws],
    reference: str,
    metrics: Sequence[str],
    confidence: float,
    losses: frozenset[str],
    margin: float = MARGIN,
) -> dict[str, dict[str, object]]:
    """Compare all techniques with the reference: differences with intervals and verdicts.

    P-values are adjusted per metric over the techniques (Holm): those of no difference, and those of no equivalence, so that
    the probability of any false *better* or *worse*, and of any false *equivalent*, is at most 1 - confidence. An *equivalent*
    interval also lies within the margin.

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
        for name, entry in compare_metric(techniques, reference, metric, confidence, metric not in losses, margin).items():
            comparisons[name]["metrics"][metric] = entry  # type: ignore[index]
    return comparisons


def compare_metric(
    techniques: Mapping[str, Draws], reference: str, metric: str, confidence: float, higher_is_better: bool, margin: float
) -> dict[str, dict[str, object]]:
    """Differences of one metric from the reference, with intervals, adjusted p-values, verdict and the smallest to be shown."""
    base, others = techniques[reference], [name for name in techniques if name != reference]
    margin = margin_for(base.point(metric), margin, higher_is_better=higher_is_better)
    differences = {name: techniques[name].values[metric] - base.values[metric] for name in others}
    p_values = {name: bootstrap_p_value(difference) for name, difference in differences.items()}
    adjusted = holm(p_values)
    intervals = {name: percentile_interval(difference, confidence) for name, difference in differences.items()}
    equivalence = holm(
        {
            name: equivalence_p_value(difference, margin) if max(map(abs, intervals[name])) <= margin else 1.0
            for name, difference in differences.items()
        }
    )
    entries: dict[str, dict[str, object]] = {}
    for name in others:
        value, (low, high) = techniques[name].point(metric) - base.point(metric), intervals[name]
        error = difference_error(techniques[name], base, metric)
        entries[name] = {
            "difference": value,
            "low": min(low, value),
            "high": max(high, value),
            "p": p_values[name],
            "p_adjusted": adjusted[name],
            "p_equivalent": equivalence[name],
            "margin": margin,
            "standard_error": error_as_json(error),
            "smallest": smallest_difference(error, (1 - confidence) / len(others)),
            "verdict": verdict(value, adjusted[name], equivalence[name], confidence, higher_is_better=higher_is_better),
        }
    return entries


REFERENCE = "baseline"


def reference_of(names: list[str]) -> str:
    """The technique that all others are compared with: the baseline, or the first one."""
    return REFERENCE if REFERENCE in names else names[0]
