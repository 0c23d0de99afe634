"""Claims of articles as differences to test: their parts, the designs that measure them, and the effects.

A difference up to a margin does not matter in practice. So a part that claims a difference has the opposite that there is none
that matters, and "level" is shown by two one-sided tests (Schuirmann 1987). The statements are in `published_claims`, the
verdicts in `claim_verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Literal

import numpy as np
from scipy.special import logit, ndtri

from ballast.evaluation.bootstrap import Draws, percentile_interval
from ballast.evaluation.comparison import margin_for, one_sided_p_value
from ballast.evaluation.power import DifferenceError, difference_error

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"

# Metrics that only claims use: the probability of the rare class for the first probe text, the log odds of the rare class in
# the effective prior relative to production, and the messages of an epoch relative to the training messages.
PROBE, PRIOR, PASSES = "probe.probability", "prior.log_odds", "passes"
EFFECT = "effect"
# The study that measures claims about entries beyond the main run, with more test messages.
CLAIMS = "claims"
# Raw probabilities are representative within this odds ratio of the production prior.
SAFE_ODDS_RATIO = 1.5

Direction = Literal["higher", "lower", "level", "not level", "not higher", "not lower"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One statement of a claim: the metric of `technique` is in `direction` relative to `reference`.

    reference : an entry; None compares with 0, for metrics that are differences themselves.
    reference_metric : the metric of the reference, if it is another one.
    """

    technique: str
    metric: str
    direction: Direction
    reference: str | None = "baseline"
    reference_metric: str | None = None

    @property
    def entries(self) -> set[str]:
        """The entries that the part needs."""
        return {self.technique} | ({self.reference} if self.reference else set())

    def as_json(self) -> dict[str, Any]:
        """The part for JSON."""
        other = {"reference_metric": self.reference_metric} if self.reference_metric else {}
        return {
            "technique": self.technique,
            "reference": self.reference,
            "metric": self.metric,
            "direction": self.direction,
            **other,
        }


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim, its source and its parts.

    study : that measures the claim; None for the main run and the study `claims`, which have the same kinds of entries.
    caveat : how the measurement differs from the claim.
    by_construction : verdict and reason of a claim that a formula decides.
    """

    words: str
    source: str
    parts: Sequence[Part] = ()
    study: str | None = None
    caveat: str | None = None
    by_construction: tuple[str, str] | None = None

    def measured_by(self, study: str | None) -> bool:
        """Whether a study measures the claim, or the main run for None."""
        return study == self.study if self.study else study in (None, CLAIMS)

    @property
    def entries(self) -> list[str]:
        """The entries that the claim needs."""
        return sorted({entry for part in self.parts for entry in part.entries})


@dataclass(frozen=True, kw_only=True)
class Design:
    """What measures the claims: draws by entry, and the size of the test.

    study : None for the main run.
    rare : test messages of the rare class `label`.
    trainings : of each entry, by seed or by fold.
    """

    draws: Mapping[str, Draws]
    label: str
    rare: int
    trainings: int
    confidence: float
    study: str | None = None

    @property
    def words(self) -> str:
        """The design in words.

        Examples
        --------
        >>> Design(draws={}, label="spam", rare=653, trainings=5, confidence=0.95, study="claims").words
        'study claims: 653 spam test messages, 5 trainings of each entry'
        """
        place = f"study {self.study}" if self.study else "main run"
        trainings = "1 training" if self.trainings == 1 else f"{self.trainings} trainings"
        return f"{place}: {self.rare:,} {self.label} test messages, {trainings} of each entry"


def prior_draws(value: float, low: float, high: float, production: float, confidence: float, resamples: int) -> np.ndarray:
    """Draws (resamples,) of the log odds of a fitted share relative to the production share, from the share's interval.

    Examples
    --------
    >>> draws = prior_draws(0.5, 0.4, 0.6, production=0.5, confidence=0.95, resamples=1000)
    >>> bool(abs(draws.mean()) < 0.01), round(float(draws.std()), 2)
    (True, 0.21)
    """
    deviation = (logit(high) - logit(low)) / (2 * ndtri((1 + confidence) / 2))
    # Quantiles instead of random numbers: the same for every entry, and exact for few resamples.
    return logit(value) - logit(production) + deviation * ndtri((np.arange(resamples) + 0.5) / resamples)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A measured part: the difference with its interval, and p-values of both answers.

    p_shown, p_opposite : one-sided p-values of the part being false and of its opposite being false. They are adjusted for all
        parts of a design in `claim_verdicts`.
    """

    part: Part
    value: float
    low: float
    high: float
    margin: float
    p_shown: float
    p_opposite: float
    error: DifferenceError

    def verdict(self, confidence: float) -> str:
        """Supported if the part is shown, contradicted if its opposite is shown, otherwise inconclusive.

        A small difference can be shown to exist and to be smaller than the margin. The claim of a difference is then right.
        """
        if self.p_shown < 1 - confidence:
            return SUPPORTED
        return CONTRADICTED if self.p_opposite < 1 - confidence else INCONCLUSIVE

    @property
    def distance(self) -> float:
        """The distance of the effect from the values that the likelier answer excludes."""
        return {
            "higher": max(self.value, self.margin - self.value),
            "lower": max(-self.value, self.margin + self.value),
            "level": abs(self.margin - abs(self.value)),
            "not level": abs(self.margin - abs(self.value)),
            "not higher": abs(self.margin - self.value),
            "not lower": abs(self.margin + self.value),
        }[self.part.direction]


def p_above(differences: np.ndarray, limit: float) -> float:
    """One-sided p-value of a true difference of at most `limit`; 0 or 1 for a difference that is computed, not estimated."""
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] > limit else 1.0
    return one_sided_p_value(differences, limit)


def answers(differences: np.ndarray, direction: Direction, margin: float) -> tuple[float, float]:
    """One-sided p-values of two answers from draws (resamples,): that the direction is shown, and that its opposite is.

    The opposite of "higher" is that a gain of the margin or more is excluded.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(0.05, 0.005, 1000)
    >>> [round(p, 3) for p in answers(draws, "higher", margin=0.02)]
    [0.0, 1.0]
    >>> [round(p, 3) for p in answers(draws, "level", margin=0.02)]
    [1.0, 0.0]
    """
    above, below = p_above(differences, 0.0), p_above(-differences, 0.0)
    not_higher, not_lower = p_above(-differences, -margin), p_above(differences, -margin)
    within = max(not_higher, not_lower)
    outside = min(p_above(differences, margin), p_above(-differences, margin))
    return {
        "higher": (above, not_higher),
        "lower": (below, not_lower),
        "level": (within, outside),
        "not level": (outside, within),
        "not higher": (not_higher, p_above(differences, margin)),
        "not lower": (not_lower, p_above(-differences, margin)),
    }[direction]


def single(draws: Draws, metric: str) -> Draws:
    """The draws of one metric, under the name of the effect."""
    return Draws(
        values={EFFECT: draws.values[metric]},
        seeds={EFFECT: draws.seeds[metric]},
        correct=draws.correct,
        sampling=None if draws.sampling is None else {EFFECT: draws.sampling[metric]},
        seed_errors={EFFECT: draws.seed_errors[metric]} if metric in draws.seed_errors else {},
    )


def zero(draws: Draws) -> Draws:
    """Draws of 0, for effects that are no difference from another entry."""
    constant = {EFFECT: np.zeros(len(draws.values[EFFECT]))}
    return Draws(values=constant, seeds={EFFECT: np.zeros(len(draws.seeds[EFFECT]))}, correct=draws.correct)


def draws_of_part(part: Part, techniques: Mapping[str, Draws]) -> tuple[Draws, Draws] | None:
    """The draws of a part and of its reference, or None if an entry or a metric is missing."""
    of_reference = part.reference_metric or part.metric
    needs = [(part.technique, part.metric), *([(part.reference, of_reference)] if part.reference else [])]
    found = [
        single(techniques[entry], metric)
        for entry, metric in needs
        if entry in techniques and metric in techniques[entry].values
    ]
    if len(found) < len(needs):
        return None
    return found[0], found[1] if part.reference else zero(found[0])


def measure_effect(part: Part, techniques: Mapping[str, Draws], confidence: float) -> Effect | None:
    """The effect of a part, or None if an entry or a metric is missing."""
    pair = draws_of_part(part, techniques)
    if pair is None:
        return None
    own, other = pair
    differences = own.values[EFFECT] - other.values[EFFECT]
    value = own.point(EFFECT) - other.point(EFFECT)
    margin = log(SAFE_ODDS_RATIO) if part.metric == PRIOR else margin_for(other.point(EFFECT))
    low, high = percentile_interval(differences, confidence)
    p_shown, p_opposite = answers(differences, part.direction, margin)
    return Effect(
        part=part,
        value=value,
        low=min(low, value),
        high=max(high, value),
        margin=margin,
        p_shown=p_shown,
        p_opposite=p_opposite,
        error=difference_error(own, other, EFFECT),
    )
