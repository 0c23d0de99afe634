"""Simulated techniques with planted truths, for the statistics of the protocol: safety, verdicts, intervals, selection."""

from __future__ import annotations

import numpy as np
from scipy.special import logit

from ballast.evaluation.priors import Safety, fit_prior


def safety_of(rare: int, production: float, prior: float, *, distance: float, seed: int) -> Safety:
    """The answer on posteriors that are right for a share `prior` of the rare class when production has `production`.

    rare : held-out messages of the rare class. The scores of the classes are normal, `distance` standard deviations apart.
    """
    rng = np.random.default_rng([seed, rare])
    labels = np.repeat([0, 1], [round(rare * (1 - production) / production), rare])
    evidence = distance * (rng.normal(size=len(labels)) + distance * (labels - 0.5))
    logits = np.stack([np.zeros(len(labels)), evidence + logit(prior)], axis=1)
    fitted = fit_prior(logits, labels, np.arange(len(labels)), confidence=0.95)
    return fitted.safety(np.array([1 - production, production]), odds_ratio=1.5)
