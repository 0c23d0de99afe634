"""Whether a technique differs from the reference: paired bootstrap, McNemar's test, Holm's correction, a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests

# Fewer say nothing about how much a training varies.
MINIMUM_SEEDS = 3
NO_DIFFERENCE = "no difference shown"


def over_seeds(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap values (resamples,) of the mean over seeds of draws (seeds, resamples) over the test sample.

    From three seeds on the seeds are resampled too, their deviations scaled by sqrt(S / (S - 1)), which makes the variance of
    so small a sample unbiased (Rao and Wu, Resampling Inference with Complex Survey Data, 1988).
    """
    seeds, resamples = draws.shape
    mean = draws.mean(axis=0)
    if seeds < MINIMUM_SEEDS:
        return mean
    share = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T / seeds
    return mean + np.sqrt(seeds / (seeds - 1)) * (share * (draws - mean)).sum(axis=0)


def seed_draws(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (resamples,) of the mean of values (seeds,): Student's t of so few; constant below three seeds."""
    seeds = len(values)
    if seeds < MINIMUM_SEEDS:
        return np.full(resamples, values.mean())
    return values.mean() + values.std(ddof=1) / np.sqrt(seeds) * rng.standard_t(seeds - 1, size=resamples)


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p-value of "no difference" from bootstrap differences (resamples,) (Davison and Hinkley 1997, 4.4)."""
    beyond = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * beyond / (len(differences) + 1)))


def mcnemar_p(correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """McNemar's mid-p value for two classifiers of the same messages, (n,) booleans each (Fagerland et al. 2013)."""
    gained = int((correct & ~reference_correct).sum())
    lost = int((~correct & reference_correct).sum())
    discordant, fewer = gained + lost, min(gained, lost)
    if not discordant:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)))


def mcnemar_over_seeds(correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """One p-value from seeds (seeds, n): twice the median of each seed's (Meinshausen et al., P-values, 2009)."""
    values = [mcnemar_p(own, other) for own, other in zip(correct, reference_correct, strict=False)]
    return values[0] if len(values) == 1 else float(min(1.0, 2 * np.median(values)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for their number (Holm 1979)."""
    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, map(float, adjusted), strict=True))


def seeds_in_words(seeds: int) -> str:
    """A number of seeds, too small for a claim, in words."""
    return {1: "one seed", 2: "two seeds"}.get(seeds, f"{seeds} seeds")


def verdict(difference: float, adjusted_p: float, seeds: int, confidence: float, *, higher_is_better: bool) -> str:
    """better, worse or no difference shown; below three seeds nothing is claimed."""
    if seeds < MINIMUM_SEEDS:
        return f"{seeds_in_words(seeds)}: inconclusive"
    if adjusted_p >= 1 - confidence:
        return NO_DIFFERENCE
    return "better" if (difference > 0) == higher_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A technique's bootstrap draws (resamples,) by metric, its point values, and which messages each seed got right (S, n)."""

    values: Mapping[str, np.ndarray]
    point: Mapping[str, float]
    correct: np.ndarray


def compare(
    techniques: Mapping[str, Draws], reference: str, metrics: Sequence[str], confidence: float, losses: frozenset[str]
) -> dict[str, dict[str, object]]:
    """Every technique against the reference: differences with intervals and verdicts; p-values are adjusted per metric.

    The draws of all techniques stand on the same resamples of the test groups, which makes their differences paired.
    """
    others = [name for name in techniques if name != reference]
    base = techniques[reference]
    found: dict[str, dict[str, object]] = {name: {"metrics": {}} for name in others}
    mcnemar = {name: mcnemar_over_seeds(techniques[name].correct, base.correct) for name in others}
    for name, adjusted in holm(mcnemar).items():
        found[name]["mcnemar"] = {"p": mcnemar[name], "p_adjusted": adjusted}
    for metric in metrics:
        differences = {name: techniques[name].values[metric] - base.values[metric] for name in others}
        p_values = {name: bootstrap_p(each) for name, each in differences.items()}
        for name, adjusted in holm(p_values).items():
            value = techniques[name].point[metric] - base.point[metric]
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
            found[name]["metrics"][metric] = entry  # type: ignore[index]
    return found
