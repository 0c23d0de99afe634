"""Fit the effective prior, the calibration and the operating point on validation, and correct the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from ballast.evaluation.calibration import Calibration, fit_calibration
from ballast.evaluation.curves import confusion
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.operating_point import OperatingPoint, choose_operating_point, expected_costs, named_costs
from ballast.evaluation.post_hoc import SplitLogits, post_hoc_logits
from ballast.evaluation.priors import FittedPrior, correct_prior, effective_prior, fit_prior
from ballast.evaluation.protocol import Protocol, SeedScores
from ballast.evaluation.statistic import LabelledScores


def fitted_as_json(fitted: FittedPrior, protocol: Protocol) -> dict[str, dict[str, float]]:
    """A fitted prior by label: value, low, high."""
    ends = zip(fitted.prior, fitted.low, fitted.high, strict=True)
    return {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, (value, low, high) in zip(protocol.names, ends, strict=True)
    }


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """One seed's scores with what was fitted on validation.

    validation, test : logits (n, K), (m, K), corrected to the production prior.
    """

    scores: SeedScores
    fitted: FittedPrior
    effective: np.ndarray
    calibration: Calibration
    operating_point: OperatingPoint
    validation: np.ndarray
    test: np.ndarray

    def preferences(self, logits: np.ndarray) -> np.ndarray:
        """Negative expected costs (n, K) of corrected logits (n, K) at the operating point; the argmax is the decision."""
        return -expected_costs(softmax(logits, axis=1), self.operating_point.costs)

    def as_json(self, protocol: Protocol, decided: Mapping[str, float]) -> dict[str, Any]:
        """Everything that was fitted, by label name. `decided` are the test metrics at the operating point."""
        declared = self.scores.declared_prior
        return {
            "declared_prior": None if declared is None else protocol.named(declared),
            "fitted_prior": fitted_as_json(self.fitted, protocol),
            "effective_prior": protocol.named(self.effective),
            "calibration": {"temperature": self.calibration.temperature, "bias": protocol.named(self.calibration.bias)},
            "operating_point": {**self.operating_point_as_json(protocol), "test": decided},
            "confusion": {"raw": confusion(self.scores.test, protocol), "corrected": confusion(self.test, protocol)},
        }

    def operating_point_as_json(self, protocol: Protocol) -> dict[str, Any]:
        """The operating point by label name, and its metrics on validation."""
        split, rule = protocol.validation, protocol.rule
        weights = protocol.production_weights(split)
        on_validation = Decisions(
            LabelledScores(protocol.names, split.classes, self.preferences(self.validation), split.groups, weights)
        )
        every_group_once = np.ones((1, int(split.groups.max()) + 1))
        return {
            "rule": rule.kind,
            "label": None if rule.kind in ("macro_f1", "cost") else protocol.names[rule.label],
            "limit": rule.limit,
            "met": self.operating_point.met,
            "costs": named_costs(self.operating_point.costs, protocol.names),
            "validation": {name: float(value[0]) for name, value in on_validation(every_group_once).items()},
        }

    def post_hoc(self, protocol: Protocol) -> dict[str, np.ndarray]:
        """Test logits (n, K) by post hoc method."""
        scores = SplitLogits(
            validation=self.scores.validation.astype(np.float64),
            classes=protocol.validation.classes,
            test=self.scores.test.astype(np.float64),
        )
        return post_hoc_logits(scores, self.effective, self.calibration, protocol.production_prior, self.scores.head)


def adjust(scores: SeedScores, protocol: Protocol) -> Adjusted:
    """Fit prior, calibration and operating point on validation; correct the logits to the production prior."""
    validation = protocol.validation
    logits = scores.validation.astype(np.float64)
    fitted = fit_prior(logits, validation.classes, validation.groups, confidence=protocol.confidence)
    effective = effective_prior(scores.declared_prior, fitted)
    corrected = correct_prior(logits, effective, protocol.production_prior)
    return Adjusted(
        scores=scores,
        fitted=fitted,
        effective=effective,
        calibration=fit_calibration(logits, validation.classes),
        operating_point=choose_operating_point(
            protocol.rule, corrected, validation.classes, protocol.production_weights(validation)
        ),
        validation=corrected,
        test=correct_prior(scores.test.astype(np.float64), effective, protocol.production_prior),
    )


def pooled_priors(scores: Sequence[SeedScores], protocol: Protocol) -> dict[str, Any]:
    """The declared prior (mean over seeds), and the prior fitted on the validation logits of all seeds.

    A technique is safe if the fitted prior is equivalent to the production prior: its posteriors can be used uncorrected.
    """
    declared = [seed.declared_prior for seed in scores if seed.declared_prior is not None]
    fitted = fit_prior(
        np.concatenate([seed.validation for seed in scores]).astype(np.float64),
        np.tile(protocol.validation.classes, len(scores)),
        np.tile(protocol.validation.groups, len(scores)),
        confidence=protocol.confidence,
        copies=len(scores),
    )
    return {
        "declared_prior": protocol.named(np.mean(declared, axis=0)) if declared else None,
        "fitted_prior": fitted_as_json(fitted, protocol),
        "safe": fitted.safety(protocol.production_prior, protocol.safe_odds_ratio),
    }
