"""The claims of articles in the main run, and in the studies that measure them with more test messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claim_verdicts import assess_raw_and_corrected, most_powerful
from ballast.evaluation.claims import PRIOR, Claim, Design, prior_draws


def with_prior(draws: Draws, fitted: Mapping[str, float], production: float, confidence: float) -> Draws:
    """The draws with the log odds of a fitted share {value, low, high} relative to the production share."""
    resamples = len(next(iter(draws.values.values())))
    ends = (fitted["value"], fitted["low"], fitted["high"])
    drawn = prior_draws(*ends, production, confidence, resamples)
    return replace(
        draws,
        values={**draws.values, PRIOR: drawn},
        seeds={**draws.seeds, PRIOR: np.full(draws.n_seeds, drawn.mean())},
        sampling=None if draws.sampling is None else {**draws.sampling, PRIOR: drawn},
    )


def claims_of_run(
    stated: Sequence[Claim],
    evaluations: Mapping[str, Any],
    raw: Mapping[str, Draws],
    corrected: Mapping[str, Draws],
    confidence: float,
) -> list[dict[str, Any]]:
    """The claims assessed on the main run, from evaluations and draws by entry."""
    first = next(iter(evaluations.values()))
    prior = first["production_prior"]
    label = min(first["labels"], key=lambda name: prior[name])
    with_priors = {
        name: with_prior(draws, evaluations[name]["fitted"]["fitted_prior"][label], prior[label], confidence)
        for name, draws in raw.items()
    }
    design = Design(
        draws=with_priors,
        label=label,
        rare=int(first["pooled"]["raw"][f"{label}.support"]["value"]),
        trainings=len(first["seeds"]),
        confidence=confidence,
    )
    return assess_raw_and_corrected(stated, design, corrected)


def decided_claims(of_run: Sequence[dict[str, Any]], of_studies: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each claim in the design that measures it on the most rare test messages."""
    return [
        most_powerful([claim, *(other for study in of_studies for other in study if other["claim"] == claim["claim"])])
        for claim in of_run
    ]
