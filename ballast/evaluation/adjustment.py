"""Fit the effective prior, the calibration and the operating point on out-of-fold scores, and correct the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from ballast.evaluation.calibration import Calibration, fit_calibration
from ballast.evaluation.operating_point import OperatingPoint, choose_operating_point, expected_costs, point_as_json
from ballast.evaluation.post_hoc import TrainedScores, post_hoc_logits
from ballast.evaluation.priors import FittedPrior, correct_prior, effective_prior, fit_prior
from ballast.evaluation.protocol import Labelled, OutOfFold, Protocol, SeedScores
from ballast.evaluation.uncertainty import with_uncertainty

# Resamples that choose a threshold again. More change its interval little.
MOST_RESAMPLES = 300


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is fitted on labelled held-out scores of a technique.

    effective : (K,) the class prior that the posteriors are right for.
    """

    declared: np.ndarray | None
    fitted: FittedPrior
    effective: np.ndarray
    operating_point: OperatingPoint

    def corrected(self, logits: np.ndarray, protocol: Protocol) -> np.ndarray:
        """Logits (n, K), corrected to the production prior."""
        return correct_prior(logits.astype(np.float64), self.effective, protocol.production_prior)

    def preferences(self, corrected: np.ndarray) -> np.ndarray:
        """Negative expected costs (n, K) of corrected logits (n, K) at the operating point; the argmax is the decision."""
        return -expected_costs(softmax(corrected, axis=1), self.operating_point.costs)

    def as_json(self, protocol: Protocol) -> dict[str, Any]:
        """The priors, the answer whether the technique is safe, and the operating point, by label name."""
        return {
            "declared_prior": None if self.declared is None else protocol.named(self.declared),
            "fitted_prior": fitted_as_json(self.fitted, protocol),
            "effective_prior": protocol.named(self.effective),
            "safe": self.fitted.safety(protocol.production_prior, protocol.safe_odds_ratio),
            "operating_point": point_as_json(self.operating_point, protocol.rule, protocol.names),
        }


def fitted_as_json(fitted: FittedPrior, protocol: Protocol) -> dict[str, dict[str, float]]:
    """A fitted prior by label: value, low, high."""
    ends = zip(fitted.prior, fitted.low, fitted.high, strict=True)
    return {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, (value, low, high) in zip(protocol.names, ends, strict=True)
    }


def fit(logits: np.ndarray, messages: Labelled, declared: np.ndarray | None, protocol: Protocol, copies: float = 1.0) -> Fit:
    """Fit the effective prior and the operating point on logits (n, K) of held-out messages."""
    logits = logits.astype(np.float64)
    fitted = fit_prior(logits, messages.classes, messages.groups, confidence=protocol.confidence, copies=copies)
    effective = effective_prior(declared, fitted)
    corrected = correct_prior(logits, effective, protocol.production_prior)
    weights = protocol.production_weights(messages)
    point = choose_operating_point(protocol.rule, corrected, messages.classes, weights, messages.groups)
    return Fit(declared=declared, fitted=fitted, effective=effective, operating_point=point)


def with_threshold_interval(fitted: Fit, logits: np.ndarray, messages: Labelled, protocol: Protocol) -> Fit:
    """The fit with the intervals of its operating point, from the logits (n, K) that it was fitted on."""
    point = with_uncertainty(
        fitted.operating_point,
        protocol.rule,
        fitted.corrected(logits, protocol),
        messages.classes,
        protocol.production_weights(messages),
        messages.groups,
        resamples=min(protocol.resamples, MOST_RESAMPLES),
        confidence=protocol.confidence,
    )
    return replace(fitted, operating_point=point)


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """A technique's scores with what was fitted on its out-of-fold scores.

    fit : on all out-of-fold scores; it is applied to test and to the deployed model.
    calibration : of the uncorrected logits.
    out_of_fold : (n, K) uncorrected logits of the out-of-fold messages.
    crossed, crossed_preferences : (n, K) corrected logits of the out-of-fold messages and their preferences at the operating
        point, each part by the fit on the other parts.
    test : logits (m, K) of each training, corrected to the production prior.
    """

    scores: Sequence[SeedScores]
    fit: Fit
    calibration: Calibration
    out_of_fold: np.ndarray
    crossed: np.ndarray
    crossed_preferences: np.ndarray
    test: Sequence[np.ndarray]

    def as_json(self, protocol: Protocol) -> dict[str, Any]:
        """Everything that was fitted, by label name."""
        calibration = {"temperature": self.calibration.temperature, "bias": protocol.named(self.calibration.bias)}
        return {**self.fit.as_json(protocol), "calibration": calibration}

    def post_hoc(self, protocol: Protocol) -> dict[str, list[np.ndarray]]:
        """Test logits (m, K) of each training by post hoc method."""
        scores = TrainedScores(
            out_of_fold=self.out_of_fold,
            classes=protocol.out_of_fold.classes,
            training=protocol.out_of_fold.training,
            test=[seed.test.astype(np.float64) for seed in self.scores],
            heads=[seed.head for seed in self.scores],
        )
        return post_hoc_logits(scores, self.fit.effective, self.calibration, protocol.production_prior)


def mean_declared(scores: Sequence[SeedScores]) -> np.ndarray | None:
    """The mean of the declared priors (K,) of several trainings; None if one has none."""
    declared = [seed.declared_prior for seed in scores]
    return None if any(prior is None for prior in declared) else np.mean(np.stack(declared), axis=0)  # type: ignore[arg-type]


def cross_fit(
    logits: np.ndarray, messages: OutOfFold, declared: np.ndarray | None, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Corrected logits (n, K) of out-of-fold logits (n, K) and their preferences (n, K), each part by the fit on the others."""
    corrected, preferences = np.empty(logits.shape), np.empty(logits.shape)
    for part in np.unique(messages.part):
        outside, inside = messages.rows_outside(part), messages.part == part
        of_others = fit(logits[outside], messages.subset(outside), declared, protocol, messages.copies)
        corrected[inside] = of_others.corrected(logits[inside], protocol)
        preferences[inside] = of_others.preferences(corrected[inside])
    return corrected, preferences


def adjust(scores: Sequence[SeedScores], protocol: Protocol) -> Adjusted:
    """Fit on the out-of-fold scores of all trainings; correct the logits to the production prior."""
    messages, declared = protocol.out_of_fold, mean_declared(scores)
    logits = np.concatenate([seed.validation for seed in scores]).astype(np.float64)
    fitted = fit(logits, messages, declared, protocol, messages.copies)
    crossed, preferences = cross_fit(logits, messages, declared, protocol)
    return Adjusted(
        scores=scores,
        fit=with_threshold_interval(fitted, logits, messages, protocol),
        calibration=fit_calibration(logits, messages.classes),
        out_of_fold=logits,
        crossed=crossed,
        crossed_preferences=preferences,
        test=[fitted.corrected(seed.test, protocol) for seed in scores],
    )
