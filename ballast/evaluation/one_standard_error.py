"""Select a technique by the one-standard-error rule: the cheapest of those that the best is not clearly better than.

Everything is measured on out-of-fold messages at the operating point, so that the test set stays untouched.

Source: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.metrics import higher_is_better, metric_names
from ballast.evaluation.priors import Safety
from ballast.evaluation.seed_variation import training_variance
from ballast.exceptions import ArgumentError, suggestion

SelectionRule = Literal["one_standard_error", "best"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An entry to select from.

    draws : out-of-fold, at the operating point; the same resamples of the messages for all candidates.
    values : metric -> value on all out-of-fold messages; decisions at the operating point, probabilities corrected.
    multiply_adds : per message, the cost of a prediction.
    """

    draws: Draws
    values: Mapping[str, float]
    multiply_adds: float
    safe: Safety


def satisfies(value: np.ndarray | float, metric: str, limit: float) -> np.ndarray:
    """Whether values satisfy a constraint: at least the limit, or at most for losses."""
    return np.asarray(value >= limit if higher_is_better(metric) else value <= limit)


def as_inequality(metric: str, limit: float) -> str:
    """A constraint as an inequality.

    Examples
    --------
    >>> as_inequality("spam.recall", 0.9), as_inequality("log_loss", 0.1)
    ('spam.recall >= 0.9', 'log_loss <= 0.1')
    """
    return f"{metric} {'>=' if higher_is_better(metric) else '<='} {limit:g}"


def eligible(candidates: Mapping[str, Candidate], *, constraints: Mapping[str, float], safe_only: bool) -> list[str]:
    """Names of the candidates with values that satisfy the constraints. Intervals are not considered."""
    return [
        name
        for name, candidate in candidates.items()
        if (not safe_only or candidate.safe == "safe")
        and all(satisfies(candidate.values[metric], metric, limit) for metric, limit in constraints.items())
    ]


def no_candidate_message(candidates: Mapping[str, Candidate], constraints: Mapping[str, float], safe_only: bool) -> str:
    """Explain that no candidate satisfies the constraints, with the best value for each."""
    wanted = []
    for metric, limit in constraints.items():
        values = {name: candidate.values[metric] for name, candidate in candidates.items()}
        name = (max if higher_is_better(metric) else min)(values, key=values.__getitem__)
        value = values[name]
        wanted.append(f"{as_inequality(metric, limit)} (the best is {value:.4g}, {name})")
    if safe_only:
        safe = sum(candidate.safe == "safe" for candidate in candidates.values())
        wanted.append(f"safe_only ({safe} of {len(candidates)} techniques are shown to be safe)")
    arguments = ["constraints"] * bool(constraints) + ["safe_only"] * safe_only
    return (
        f"{arguments[0]}: no technique satisfies {', '.join(wanted)} on out-of-fold messages at the operating point;"
        f" loosen {' or '.join(arguments)}"
    )


def standard_errors(candidates: Sequence[Candidate], metric: str, folds: Sequence[int] | None = None) -> np.ndarray:
    """Standard errors (T, T) of the paired differences of T candidates.

    Each is the bootstrap variance over messages plus that between trainings, because another training scores each fold.
    """
    drawn = np.stack([candidate.draws.values[metric] for candidate in candidates])
    covariance = np.atleast_2d(np.cov(drawn))
    variances = np.diag(covariance)
    of_messages = variances[:, None] + variances[None] - 2 * covariance
    of_trainings, _ = training_variance([candidate.draws for candidate in candidates], metric, folds)
    trainings = len(candidates[0].draws.seeds[metric])
    errors = np.sqrt(np.maximum(of_messages, 0) + 2 * of_trainings / trainings)
    np.fill_diagonal(errors, 0)
    return errors


def choose(
    values: np.ndarray, errors: np.ndarray, costs: Sequence[tuple[float, bool]], allowed: np.ndarray, rule: SelectionRule
) -> np.ndarray:
    """Number (R,) of the candidate that the rule selects in each of R draws; -1 if none is allowed.

    values : (R, T), higher is better.
    errors : (T, T) standard errors of differences.
    costs : (T) of (multiply-adds, whether it is not the reference): the smaller one goes first.
    allowed : (R, T) whether the constraints are satisfied.

    Examples
    --------
    >>> errors = np.full((3, 3), 0.01)
    >>> values = np.array([[0.950, 0.955, 0.90], [0.930, 0.955, 0.90]])
    >>> choose(values, errors, [(1, False), (2, True), (1, True)], np.ones((2, 3), dtype=bool), "one_standard_error")
    array([0, 1])
    """
    masked = np.where(allowed, values, -np.inf)
    best = masked.argmax(axis=1)
    if rule == "one_standard_error":
        ranks = np.unique(np.array(costs, dtype=float), axis=0, return_inverse=True)[1].ravel()
        within = allowed & (masked.max(axis=1, keepdims=True) - values <= errors[best])
        rank = np.where(within, ranks, len(costs))
        best = np.where(rank == rank.min(axis=1, keepdims=True), masked, -np.inf).argmax(axis=1)
    return np.where(allowed.any(axis=1), best, -1)


def stability(
    candidates: Mapping[str, Candidate],
    errors: np.ndarray,
    costs: Sequence[tuple[float, bool]],
    *,
    metric: str,
    rule: SelectionRule,
    constraints: Mapping[str, float],
    safe_only: bool,
) -> dict[str, float]:
    """Share of the bootstrap redraws of the messages in which the rule selects each candidate; those with 0 are left out."""
    sign = 1 if higher_is_better(metric) else -1
    drawn = sign * np.stack([candidate.draws.values[metric] for candidate in candidates.values()], axis=1)
    allowed = np.ones(drawn.shape, dtype=bool)
    for number, candidate in enumerate(candidates.values()):
        allowed[:, number] = not safe_only or candidate.safe == "safe"
        for limited, limit in constraints.items():
            # Metrics of probabilities have no draws at the operating point.
            allowed[:, number] &= satisfies(candidate.draws.values.get(limited, candidate.values[limited]), limited, limit)
    selected = choose(drawn, errors, costs, allowed, rule)
    return {name: float(share) for number, name in enumerate(candidates) if (share := (selected == number).mean()) > 0}


def select(
    candidates: Mapping[str, Candidate],
    labels: list[str],
    *,
    metric: str,
    rule: SelectionRule,
    constraints: Mapping[str, float],
    safe_only: bool,
    reference: str,
    folds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Select a candidate; return the selection for JSON.

    Parameters
    ----------
    candidates : by name, at least one.
    metric : to rank by, one of decisions.
    rule : `one_standard_error` selects the cheapest candidate whose paired difference from the best is within one standard
        error of that difference; of equally cheap ones the reference, then the better one. `best` selects the best.
    constraints : metric -> limit of its out-of-fold value.
    safe_only : leave out candidates with raw posteriors that are unsafe, or not shown to be safe, for the production prior.
    folds : (S,) fold that each training is scored on; by default each training has its own.

    Returns
    -------
    technique, rule, metric, best; standard_error of the difference between both; candidates: name -> difference from the best,
    standard_error, within; tied: names within one standard error, the best first; stability: `stability`.

    Raises
    ------
    ArgumentError : a metric is unknown or not one of decisions, or no candidate satisfies the constraints.
    """
    valid = metric_names(labels)
    for argument, names in (("metric", [metric]), ("constraints", constraints)):
        for name in names:
            if name not in valid:
                raise ArgumentError(f"{argument}: unknown metric {name!r}: {suggestion(name, valid)}")
    if not all(metric in candidate.draws.values for candidate in candidates.values()):
        raise ArgumentError(f"metric: {metric} is not a metric of decisions; expected one, such as macro_f1 or {labels[-1]}.f1")
    names = eligible(candidates, constraints=constraints, safe_only=safe_only)
    if not names:
        raise ArgumentError(no_candidate_message(candidates, constraints, safe_only))
    everyone = list(candidates)
    sign = 1 if higher_is_better(metric) else -1
    values = sign * np.array([candidate.values[metric] for candidate in candidates.values()])
    errors = standard_errors(list(candidates.values()), metric, folds)
    costs = [(candidate.multiply_adds, name != reference) for name, candidate in candidates.items()]
    allowed = np.array([[name in names for name in everyone]])
    [best], [chosen] = (choose(values[None], errors, costs, allowed, by) for by in ("best", rule))
    entries = {
        name: {
            "difference": float(sign * (values[number] - values[best])),
            "standard_error": float(errors[best, number]),
            "within": bool(values[best] - values[number] <= errors[best, number]),
        }
        for number, name in enumerate(everyone)
        if name in names
    }
    return {
        "technique": everyone[chosen],
        "rule": rule,
        "metric": metric,
        "best": everyone[best],
        "standard_error": float(errors[best, chosen]),
        "candidates": entries,
        "tied": sorted(
            (name for name, entry in entries.items() if entry["within"]), key=lambda name: -values[everyone.index(name)]
        ),
        "stability": stability(
            candidates, errors, costs, metric=metric, rule=rule, constraints=constraints, safe_only=safe_only
        ),
    }
