"""Estimate the class prior of unlabelled messages, with an interval.

Under label shift, the mean posterior of a window is a mixture of the mean posteriors of the classes. Labelled messages give the
means of the classes, and the weights of the mixture are the class prior of the window.

Source: Bella et al., Quantification via Probability Estimators (2010), for probabilistic adjusted count; Saerens et al. (2002)
for EMQ. QuaPy implements both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from quapy.method.aggregative import ACC, EMQ
from scipy.special import ndtri

# Weight of a pseudo-message that each class gets at each corner of the simplex (Jeffreys prior). Without it, a class whose
# messages are all recognised has no variance, and the interval for a large share of it is far too narrow.
PSEUDO_MESSAGE = 0.5
BISECTIONS = 40


@dataclass(frozen=True, kw_only=True)
class ClassConditionals:
    """Class-conditional means of q features in K classes, over labelled messages.

    mean : (K, q).
    covariance : (K, q, q), of one message.
    mean_covariance : (K, q, q), of the mean over groups of near duplicates.
    """

    mean: np.ndarray
    covariance: np.ndarray
    mean_covariance: np.ndarray

    def mixture(self, prior: np.ndarray) -> np.ndarray:
        """Covariance (q, q) of one message from the mixture with a prior (K,)."""
        centred = self.mean - prior @ self.mean
        return np.einsum("k,kij->ij", prior, self.covariance) + np.einsum("k,ki,kj->ij", prior, centred, centred)

    def mixture_mean_covariance(self, prior: np.ndarray) -> np.ndarray:
        """Covariance (q, q) of the mean of the mixture with a prior (K,), because the means of the classes are estimates."""
        return np.einsum("k,kij->ij", prior**2, self.mean_covariance)


def sums_of_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum the rows of values (n, q) by group (n,): (g, q), in the order of the group numbers.

    Examples
    --------
    >>> sums_of_groups(np.array([[1.0], [2.0], [3.0]]), groups=np.array([7, 7, 9]))
    array([[3.],
           [3.]])
    """
    _, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((group.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def class_conditionals(
    features: np.ndarray, classes: np.ndarray, groups: np.ndarray, count: int, corners: np.ndarray | None = None
) -> ClassConditionals:
    """Means and covariances of features in each class.

    Parameters
    ----------
    features : (n, q).
    classes : (n,) class indices; each of the `count` classes must occur.
    groups : (n,) of near duplicates.
    count : number of classes K.
    corners : (c, q) features of the pseudo-messages that each class gets.

    Examples
    --------
    >>> features, classes = np.array([[0.9], [0.7], [0.1]]), np.array([1, 1, 0])
    >>> class_conditionals(features, classes, groups=np.arange(3), count=2).mean.round(2)
    array([[0.1],
           [0.8]])
    """
    size = features.shape[1]
    extra = np.empty((0, size)) if corners is None else corners
    means, covariances, mean_covariances = [], [], []
    for label in range(count):
        rows = classes == label
        own = features[rows]
        weight = len(own) + PSEUDO_MESSAGE * len(extra)
        mean = (own.sum(axis=0) + PSEUDO_MESSAGE * extra.sum(axis=0)) / weight
        of_extra = PSEUDO_MESSAGE * (extra - mean).T @ (extra - mean)
        covariance = ((own - mean).T @ (own - mean) + of_extra) / weight
        sums = sums_of_groups(own - mean, groups[rows])
        means.append(mean)
        covariances.append(covariance)
        mean_covariances.append((sums.T @ sums + of_extra) / weight**2)
    return ClassConditionals(mean=np.array(means), covariance=np.array(covariances), mean_covariance=np.array(mean_covariances))


def design_effect(values: np.ndarray, groups: np.ndarray) -> float:
    """Factor by which groups (n,) of near duplicates raise the variance of the mean of values (n,); at least 1.

    Source: Kish, Survey Sampling (1965).

    Examples
    --------
    >>> values = np.array([0.0, 0.0, 1.0, 1.0])
    >>> design_effect(values, groups=np.arange(4)), design_effect(values, groups=np.array([0, 0, 1, 1]))
    (1.0, 2.0)
    """
    centred = (values - values.mean())[:, None]
    rows = float((centred**2).sum())
    return max(1.0, float((sums_of_groups(centred, groups) ** 2).sum()) / rows) if rows > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class PriorEstimate:
    """The class prior (K,) of a window, and the lower and upper ends (K,) of the interval of each class."""

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray


def classify_and_count(posteriors: np.ndarray) -> np.ndarray:
    """Shares (K,) of the most probable classes by posteriors (n, K): the naive estimate, biased under label shift.

    Examples
    --------
    >>> classify_and_count(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]))
    array([0.75, 0.25])
    """
    return np.bincount(posteriors.argmax(axis=1), minlength=posteriors.shape[1]) / len(posteriors)


def emq(calibrated: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Class prior (K,) of a window by EMQ, from its calibrated posteriors (n, K), which are right for a prior (K,).

    Source: Saerens et al. (2002).

    Examples
    --------
    >>> calibrated = np.array([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 4)
    >>> emq(calibrated, prior=np.array([0.5, 0.5])).round(2)
    array([0.62, 0.38])
    """
    estimated, _ = EMQ.EM(prior, calibrated)
    return np.asarray(estimated)


def posterior_conditionals(posteriors: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> ClassConditionals:
    """Mean posteriors of the K classes, from posteriors (n, K), classes (n,) and groups (n,) of labelled messages.

    Every class must occur.

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1]] * 20 + [[0.2, 0.8]] * 10)
    >>> classes = np.repeat([0, 1], [20, 10])
    >>> posterior_conditionals(posteriors, classes, groups=np.arange(30)).mean.round(2)
    array([[0.88, 0.12],
           [0.23, 0.77]])
    """
    count = posteriors.shape[1]
    return class_conditionals(posteriors, classes, groups, count, np.eye(count))


def adjusted_count(posteriors: np.ndarray, conditionals: ClassConditionals) -> np.ndarray:
    """Class prior (K,) of a window by probabilistic adjusted count (PACC), from its posteriors (n, K).

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1]] * 20 + [[0.2, 0.8]] * 10)
    >>> conditionals = posterior_conditionals(posteriors, np.repeat([0, 1], [20, 10]), groups=np.arange(30))
    >>> window = np.array([[0.9, 0.1]] * 50 + [[0.2, 0.8]] * 50)
    >>> adjusted_count(window, conditionals).round(2)
    array([0.49, 0.51])
    """
    return np.asarray(ACC.solve_adjustment(conditionals.mean.T, posteriors.mean(axis=0), method="inversion", solver="minimize"))


def estimate_prior(
    posteriors: np.ndarray, groups: np.ndarray, conditionals: ClassConditionals, *, confidence: float
) -> PriorEstimate:
    """Class prior of a window by PACC, with an interval for the share of each class.

    Parameters
    ----------
    posteriors : (n, K) of the window, n > 0.
    groups : (n,) of near duplicates in the window.
    conditionals : of labelled messages, scored by the same model.
    confidence : of the intervals, such as 0.95.

    Notes
    -----
    The interval holds the shares that a score test does not reject (Fieller 1954). For a share x, the test compares the mean
    posterior of the window with that of the mixture with share x; the other classes keep their proportions. The variance is
    that for x as the truth. It allows for the sampling of the window and of the labelled messages, by groups of near
    duplicates. Unlike a bootstrap interval, this one allows for mistakes that happen not to occur among the labelled messages.

    Examples
    --------
    >>> posteriors = np.array([[0.9, 0.1]] * 200 + [[0.2, 0.8]] * 100)
    >>> conditionals = posterior_conditionals(posteriors, np.repeat([0, 1], [200, 100]), groups=np.arange(300))
    >>> window = np.array([[0.9, 0.1]] * 250 + [[0.2, 0.8]] * 250)
    >>> estimate = estimate_prior(window, groups=np.arange(500), conditionals=conditionals, confidence=0.95)
    >>> estimate.prior.round(2), estimate.low.round(2), estimate.high.round(2)
    (array([0.5, 0.5]), array([0.45, 0.46]), array([0.54, 0.55]))
    """
    classes = posteriors.shape[1]
    prior = adjusted_count(posteriors, conditionals)
    # A share of 0 would rule the class out for good, so the smallest estimate is half a message.
    prior = np.maximum(prior, 0.5 / len(posteriors))
    prior /= prior.sum()
    inverse = np.linalg.pinv(conditionals.mean.T)
    free = inverse @ posteriors.mean(axis=0)
    quantile = ndtri((1 + confidence) / 2)
    ends = np.empty((2, classes))
    for label in range(classes):
        direction = inverse[label]
        effect = design_effect(posteriors @ direction, groups)
        rest = np.delete(prior, label)
        rest = rest / rest.sum() if rest.sum() > 0 else np.full(classes - 1, 1 / (classes - 1))

        def margin(share: float) -> float:
            truth = np.insert((1 - share) * rest, label, share)  # noqa: B023
            window = effect * conditionals.mixture(truth) / len(posteriors)  # noqa: B023
            deviation = np.sqrt(direction @ (window + conditionals.mixture_mean_covariance(truth)) @ direction)  # noqa: B023
            return float(quantile * deviation)

        def accepted(share: float) -> bool:
            return bool(abs(free[label] - share) <= margin(share))  # noqa: B023

        inside = float(np.clip(free[label], 0, 1))
        if not accepted(inside):
            # No share fits, so the scores are not a mixture of the classes; `label_shift` tests for that.
            ends[:, label] = np.clip([inside - margin(inside), inside + margin(inside)], 0, 1)
            continue
        for at, end in enumerate((0.0, 1.0)):
            ends[at, label] = end if accepted(end) else bisect(accepted, inside, end)
    return PriorEstimate(prior=prior, low=np.minimum(ends[0], prior), high=np.maximum(ends[1], prior))


def bisect(accepted: Callable[[float], bool], inside: float, outside: float) -> float:
    """The share at which a test begins to reject, between an accepted share `inside` and a rejected share `outside`.

    Examples
    --------
    >>> round(bisect(lambda share: share < 0.3, inside=0.0, outside=1.0), 6)
    0.3
    """
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepted(middle) else (inside, middle)
    return (inside + outside) / 2
