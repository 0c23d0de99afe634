"""Estimate how good the decisions on a window without labels are.

Under label shift, the rates at which a model decides for each class, given the true class, are those of the held-out messages.
With the class prior of the window, they give precision, recall and cost there.

Source: Saerens et al., Adjusting the Outputs of a Classifier to New a Priori Probabilities (2002), for label shift; Rubin, The
Bayesian Bootstrap (1981), for the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from ballast.evaluation.bootstrap import percentile_interval
from ballast.evaluation.priors import correct_prior, fit_prior
from ballast.evaluation.statistic import safe_ratio
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.quantification import posterior_conditionals, sums_of_groups

# Wrong decisions are counted per this many messages.
MESSAGES = 10_000
# Weight of the pseudo-messages of each class and of the window: one in total, in equal parts at the corners of the simplex. For
# two classes this is the Jeffreys prior. Without them, a mistake that no held-out message shows would be impossible.
PSEUDO_MESSAGES = 1.0
# Weights in memory at a time, and the most groups with a weight of their own. In larger windows, random sets of groups share a
# weight. Their sums are independent too, and there are enough of them to measure the variance.
WEIGHTS_AT_ONCE, MOST_UNITS = 1 << 22, 1 << 15
# Keeps the logarithm finite if a probability underflows to 0.
LEAST = 1e-300
# Relative weight of the constraint that shares sum to 1.
HEAVY = 1e5


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Labelled messages that the model has not seen: posteriors (m, K), decisions (m,), true classes (m,) and groups (m,)."""

    posteriors: np.ndarray
    decisions: np.ndarray
    classes: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PerformanceProtocol:
    """What to estimate, and how.

    names : K label names.
    costs : (K, K), costs[true, predicted]; None leaves the cost out.
    resamples, confidence, seed : of the bootstrap.
    """

    names: Sequence[str]
    costs: np.ndarray | None
    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """An estimated metric and its interval."""

    value: float
    low: float
    high: float


def confusion_rates(classes: np.ndarray, decisions: np.ndarray, count: int) -> np.ndarray:
    """Rates (K, K) of decision d given true class y, rates[y, d], from classes (m,) and decisions (m,).

    A class without messages gets equal rates.

    Examples
    --------
    >>> confusion_rates(classes=np.array([0, 0, 0, 1]), decisions=np.array([0, 0, 1, 1]), count=2).round(2)
    array([[0.67, 0.33],
           [0.  , 1.  ]])
    """
    counted = np.bincount(classes * count + decisions, minlength=count**2).reshape(count, count)
    support = counted.sum(axis=1, keepdims=True)
    return np.where(support > 0, counted / np.maximum(support, 1), 1 / count)


def floor_names(names: Sequence[str]) -> list[str]:
    """Names of the estimated metrics that can have a floor.

    Examples
    --------
    >>> floor_names(["ham", "spam"])[:4]
    ['ham.precision', 'ham.recall', 'ham.f1', 'spam.precision']
    """
    return [f"{name}.{metric}" for name in names for metric in ("precision", "recall", "f1")]


def performance(
    prior: np.ndarray, rates: np.ndarray, names: Sequence[str], costs: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Metrics of decisions by name, each (b,), from priors (b, K) and rates (b, K, K) of decisions given the true class.

    For each class: precision, recall, F1, the share of messages assigned to it, and the messages wrongly assigned to it per
    10,000 messages. With costs (K, K), also the expected cost of a message.

    Examples
    --------
    >>> rates = np.array([[[0.98, 0.02], [0.1, 0.9]]])
    >>> at = performance(np.array([[0.9, 0.1]]), rates, ["ham", "spam"], costs=np.array([[0.0, 10.0], [1.0, 0.0]]))
    >>> {name: round(float(at[name][0]), 3) for name in ("spam.precision", "spam.recall", "spam.share", "cost")}
    {'spam.precision': 0.833, 'spam.recall': 0.9, 'spam.share': 0.108, 'cost': 0.19}
    """
    joint = prior[:, :, None] * rates
    recall, hits = (np.diagonal(table, axis1=1, axis2=2) for table in (rates, joint))
    assigned = joint.sum(axis=1)
    f1 = safe_ratio(2 * hits, prior + assigned)
    by_class = {
        "precision": safe_ratio(hits, assigned),
        "recall": recall,
        "f1": f1,
        "share": assigned,
        "wrongly_assigned_per_10000": MESSAGES * (assigned - hits),
    }
    values = {f"{name}.{metric}": column[:, at] for at, name in enumerate(names) for metric, column in by_class.items()}
    return values if costs is None else values | {"cost": (joint * costs).sum(axis=(1, 2))}


def mixture_shares(means: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Priors (b, K) with mixtures of the classes' means (b, K, K) that are closest to the observed means (b, K).

    Least squares over the simplex.

    Examples
    --------
    >>> means = np.array([[[0.9, 0.1], [0.2, 0.8]]] * 2)
    >>> mixture_shares(means, np.array([[0.55, 0.45], [0.95, 0.05]])).round(2)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    count = means.shape[-1]
    designs = np.swapaxes(means, 1, 2)
    try:
        shares = np.linalg.solve(designs, observed[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        shares = np.full_like(observed, -1.0)
    for at in np.flatnonzero(~(shares.min(axis=1) >= 0)):
        stacked = np.vstack([designs[at], np.full(count, HEAVY)])
        shares[at] = nnls(stacked, np.append(observed[at], HEAVY))[0]
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def units_of(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The unit (n,) that each message is drawn with, by its group (n,), and the number of units."""
    unique, unit = np.unique(groups, return_inverse=True)
    if len(unique) <= MOST_UNITS:
        return unit, len(unique)
    return rng.integers(MOST_UNITS, size=len(unique))[unit], MOST_UNITS


@dataclass(frozen=True, kw_only=True)
class UnitSums:
    """Sums (u, q) of features over units (u,) of messages, and their numbers of messages (u,)."""

    units: np.ndarray
    sums: np.ndarray
    sizes: np.ndarray

    def means(self, weights: np.ndarray, corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws (b, q) of the mean feature by weights (b, units), with pseudo-messages at the corners (K, q)."""
        own = weights[:, self.units]
        pseudo = rng.standard_gamma(PSEUDO_MESSAGES / len(corners), size=(len(weights), len(corners)))
        total = own @ self.sizes + pseudo.sum(axis=1)
        return np.asarray((own @ self.sums + pseudo @ corners) / total[:, None])


def unit_sums(features: np.ndarray, units: np.ndarray) -> UnitSums:
    """Sums of features (n, q) by unit (n,).

    Examples
    --------
    >>> unit_sums(np.array([[1.0], [2.0], [3.0]]), units=np.array([0, 0, 4])).sums
    array([[3.],
           [3.]])
    """
    present, sizes = np.unique(units, return_counts=True)
    return UnitSums(units=present, sums=sums_of_groups(features, units), sizes=sizes.astype(np.float64))


def class_sums(held_out: HeldOut, units: np.ndarray) -> list[UnitSums]:
    """For each class, the sums of the posteriors and of the one-hot decisions (u, 2K) by unit (m,)."""
    corners = np.eye(held_out.posteriors.shape[1])
    features = np.hstack([held_out.posteriors, corners[held_out.decisions]])
    return [unit_sums(features[own], units[own]) for own in (held_out.classes == label for label in range(len(corners)))]


def prior_and_rates(
    versions: Sequence[HeldOut], window: ScoredMessages, resamples: int, seed: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Blocks of draws of the window's prior (b, K) and of the rates (b, K, K) of each version of the model.

    The first version scored the window. Each group of near duplicates gets one exponential weight (Bayesian bootstrap), so the
    draws of the prior and of all rates belong together.
    """
    count = window.posteriors.shape[1]
    rng = np.random.default_rng(seed)
    unit, units = units_of(np.concatenate([held_out.groups for held_out in versions]), rng)
    of_window, window_units = units_of(window.groups, rng)
    corners = np.eye(count)
    both = np.hstack([corners, corners])
    ends = np.cumsum([len(held_out.groups) for held_out in versions])
    classes = [
        class_sums(held_out, of_version) for held_out, of_version in zip(versions, np.split(unit, ends[:-1]), strict=True)
    ]
    messages = unit_sums(window.posteriors, of_window)
    block = max(1, WEIGHTS_AT_ONCE // max(units, window_units, 2 * count**2))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        weights = rng.standard_exponential((rows, units))
        by_class = [np.stack([sums.means(weights, both, rng) for sums in version], axis=1) for version in classes]
        observed = messages.means(rng.standard_exponential((rows, window_units)), corners, rng)
        yield mixture_shares(by_class[0][:, :, :count], observed), [means[:, :, count:] for means in by_class]


def on_prior(held_out: HeldOut, window: ScoredMessages, prior: np.ndarray) -> tuple[HeldOut, ScoredMessages, np.ndarray]:
    """Both with their posteriors on an estimated prior (K,) of the window, and the prior (K,) that these posteriors give.

    The mean of posteriors on another prior is less precise: at a share of 1%, messages with posteriors that are moderate at 13%
    add noise and no evidence. Posteriors on the prior of the window are about as precise as maximum likelihood, as one step of
    it. They need not be calibrated, because the held-out messages give the means of the classes.

    Source: Saerens et al. (2002); van der Vaart, Asymptotic Statistics (1998), section 5.7, for one-step estimates.

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1]] * 190 + [[0.2, 0.8]] * 110)
    >>> classes = np.repeat([0, 1], [200, 100])
    >>> held_out = HeldOut(posteriors=posteriors, decisions=posteriors.argmax(axis=1), classes=classes, groups=np.arange(300))
    >>> window = ScoredMessages(posteriors=posteriors[100:], groups=np.arange(200), descriptors={})
    >>> on_prior(held_out, window, np.array([0.5, 0.5]))[2].round(2)
    array([0.47, 0.53])
    """
    logs, of_window = (np.log(np.maximum(posteriors, LEAST)) for posteriors in (held_out.posteriors, window.posteriors))
    effective = fit_prior(logs, held_out.classes, held_out.groups, confidence=0.95).prior
    moved = replace(held_out, posteriors=softmax(correct_prior(logs, effective, prior), axis=1))
    seen = replace(window, posteriors=softmax(correct_prior(of_window, effective, prior), axis=1))
    means = posterior_conditionals(moved.posteriors, moved.classes, moved.groups).mean
    again = mixture_shares(means[None], seen.posteriors.mean(axis=0)[None])[0]
    # As in `estimate_prior`, the smallest share is half a message.
    again = np.maximum(again, 0.5 / len(seen.groups))
    return moved, seen, again / again.sum()


def with_intervals(
    values: Mapping[str, np.ndarray], draws: Sequence[Mapping[str, np.ndarray]], confidence: float
) -> dict[str, Estimated]:
    """Each value (1,) with the percentile interval of its blocks of draws (b,), which contains the value.

    Examples
    --------
    >>> found = with_intervals({"recall": np.array([0.5])}, [{"recall": np.array([0.6, 0.7])}], confidence=0.95)["recall"]
    >>> found.value, found.low, round(found.high, 2)
    (0.5, 0.5, 0.7)
    """
    estimated = {}
    for name, (value,) in values.items():
        low, high = percentile_interval(np.concatenate([block[name] for block in draws]), confidence)
        estimated[name] = Estimated(value=float(value), low=min(low, float(value)), high=max(high, float(value)))
    return estimated


def estimate_performance(
    held_out: HeldOut, window: ScoredMessages, prior: np.ndarray, protocol: PerformanceProtocol
) -> dict[str, Estimated]:
    """Estimate the metrics of a model's decisions in the traffic that a window is drawn from, by name.

    Valid under label shift only; `label_shift` tests for it.

    Parameters
    ----------
    held_out : scored by the same model, with its decisions at the operating point of the window.
    window : n > 0 messages.
    prior : (K,) estimated for the window. `on_prior` gives a more precise one than `estimate_prior` does.

    Notes
    -----
    A joint bootstrap over the held-out groups and the groups of the window gives the intervals. Both the prior and the rates
    follow from the same draw of the held-out groups, so the interval includes their covariance.

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1]] * 190 + [[0.2, 0.8]] * 110)
    >>> classes = np.repeat([0, 1], [200, 100])
    >>> held_out = HeldOut(posteriors=posteriors, decisions=posteriors.argmax(axis=1), classes=classes, groups=np.arange(300))
    >>> window = ScoredMessages(posteriors=posteriors[100:], groups=np.arange(200), descriptors={})
    >>> protocol = PerformanceProtocol(names=["ham", "spam"], costs=None, resamples=500, confidence=0.95, seed=0)
    >>> estimated = estimate_performance(held_out, window, np.array([0.5, 0.5]), protocol)["spam.precision"]
    >>> round(estimated.value, 2), round(estimated.low, 2), round(estimated.high, 2)
    (0.95, 0.91, 0.98)
    """
    rates = confusion_rates(held_out.classes, held_out.decisions, len(prior))
    values = performance(prior[None], rates[None], protocol.names, protocol.costs)
    # One thread: the products are small, and a busy machine has no use for more.
    with threadpool_limits(1, user_api="blas"):
        blocks = [
            performance(shares, drawn, protocol.names, protocol.costs)
            for shares, (drawn,) in prior_and_rates([held_out], window, protocol.resamples, protocol.seed)
        ]
    return with_intervals(values, blocks, protocol.confidence)
