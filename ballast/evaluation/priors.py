"""Effective priors: the class prior that posteriors are right for, and the correction to another prior.

Source: Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier to New a Priori Probabilities (2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, log_softmax, logit, logsumexp, ndtri, softmax

NEWTON_STEPS = 100
GRADIENT_TOLERANCE = 1e-10
# Keeps the information matrix invertible when all messages are far from the decision boundary.
LEAST_INFORMATION = 1e-30
# Whether raw posteriors can be used at a prior without a correction.
Safety = Literal["safe", "unsafe", "unknown"]


@dataclass(frozen=True, kw_only=True)
class FittedPrior:
    """A prior (K,) measured on labelled scores, with the ends (K,) of each class's interval.

    joint : factor by which the intervals, in log odds, must be wider to hold for all classes at once.

    Examples
    --------
    >>> fitted = FittedPrior(prior=np.array([0.7, 0.3]), low=np.array([0.6, 0.2]), high=np.array([0.8, 0.4]))
    >>> fitted.contains(np.array([0.65, 0.35])), fitted.contains(np.array([0.95, 0.05]))
    (True, False)
    """

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray
    joint: float = 1.0

    def joint_log_odds(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends (K,) of the joint intervals of all classes, in log odds."""
        centre, low, high = logit(self.prior), logit(self.low), logit(self.high)
        if self.joint > 1:
            # A share that rounds to 0 or 1 has infinite log odds: its interval has no limit.
            with np.errstate(invalid="ignore"):
                low, high = centre + self.joint * (low - centre), centre + self.joint * (high - centre)
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)

    def contains(self, prior: np.ndarray) -> bool:
        """Whether the shares of all classes in `prior` (K,) lie within their joint intervals."""
        low, high = self.joint_log_odds()
        return bool(np.all((expit(low) <= prior) & (prior <= expit(high))))

    def safety(self, prior: np.ndarray, odds_ratio: float) -> Safety:
        """Whether posteriors are right for a prior (K,), as an equivalence test.

        *safe*: the joint intervals of all classes lie within `odds_ratio` of the odds in `prior`, on both sides. *unsafe*: the
        interval of some class lies wholly outside. *unknown*: the data cannot tell.

        Source: Schuirmann, A Comparison of the Two One-Sided Tests Procedure and the Power Approach (1987).

        Examples
        --------
        >>> fitted = FittedPrior(prior=np.array([0.7, 0.3]), low=np.array([0.66, 0.26]), high=np.array([0.74, 0.34]))
        >>> [fitted.safety(np.array([1 - share, share]), odds_ratio=1.5) for share in (0.3, 0.25, 0.1)]
        ['safe', 'unknown', 'unsafe']
        """
        low, high = self.joint_log_odds()
        centre, limit = logit(prior), np.log(odds_ratio)
        if np.any((low > centre + limit) | (high < centre - limit)):
            return "unsafe"
        return "safe" if np.all((low >= centre - limit) & (high <= centre + limit)) else "unknown"


def correct_prior(logits: np.ndarray, from_prior: np.ndarray, to_prior: np.ndarray) -> np.ndarray:
    """Correct logits (n, K) to another prior: add log(to_prior / from_prior), both (K,) (Saerens et al., equation 2.4).

    Examples
    --------
    >>> from scipy.special import softmax
    >>> logits = np.log([[0.3, 0.7]])
    >>> balanced, production = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    >>> softmax(correct_prior(logits, balanced, production), axis=1).round(3)
    array([[0.794, 0.206]])
    """
    return logits + np.log(to_prior) - np.log(from_prior)


def fisher_information(posterior: np.ndarray) -> np.ndarray:
    """Fisher information (K, K) of a shift: sum over messages of diag(p) - p p', posteriors (n, K).

    Its rows sum to 0, so the diagonal follows from the rest. This stays exact for posteriors close to 0 and 1.

    Examples
    --------
    >>> fisher_information(np.array([[0.5, 0.5], [0.9, 0.1]])).round(2)
    array([[ 0.34, -0.34],
           [-0.34,  0.34]])
    """
    between = posterior.T @ posterior
    np.fill_diagonal(between, 0)
    return np.diag(between.sum(axis=1)) - between


def fit_shift(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Intercept-only maximum-likelihood shift b (K,) of logits (n, K) for labels (n,); b sums to 0.

    The likelihood is concave. Its maximum is finite if every class occurs: mean softmax(z + b) = class shares.

    Examples
    --------
    >>> logits, labels = np.zeros((4, 2)), np.array([0, 0, 0, 1])
    >>> odds = np.exp(fit_shift(logits, labels))
    >>> (odds / odds.sum()).round(2)
    array([0.75, 0.25])
    """
    classes = logits.shape[1]
    share = np.bincount(labels, minlength=classes) / len(labels)
    shift = np.zeros(classes)

    def log_likelihood(candidate: np.ndarray) -> float:
        return float(log_softmax(logits + candidate, axis=1)[np.arange(len(labels)), labels].mean())

    best = log_likelihood(shift)
    for _ in range(NEWTON_STEPS):
        posterior = softmax(logits + shift, axis=1)
        gradient = share - posterior.mean(axis=0)
        if np.abs(gradient).max() < GRADIENT_TOLERANCE:
            break
        hessian = fisher_information(posterior) / len(labels)
        step = np.linalg.lstsq(hessian + 1e-12 * np.eye(classes), gradient, rcond=None)[0]
        step *= min(1.0, 10.0 / np.abs(step).max())
        while (value := log_likelihood(shift + step)) < best and np.abs(step).max() > 1e-12:
            step /= 2
        shift, best = shift + step, value
    return shift - shift.mean()


def fit_prior(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, confidence: float, copies: float = 1
) -> FittedPrior:
    """Measure the effective prior on validation: proportional to (class shares) x exp(-b), with b from `fit_shift`.

    Parameters
    ----------
    logits, labels, groups : (n, K), (n,), (n,); every class occurs.
    confidence : of the interval, such as 0.95.
    copies : number of scores per message among the rows, such as one per seed. They count as the information of one message.

    Notes
    -----
    The interval is the wider of two, on the scale of each class's log odds: that of the sandwich estimator over groups (White
    1982; Liang and Zeger 1986), which allows for over- or underconfident posteriors, and that of the Fisher information, which
    accounts for messages far from the decision boundary. The class shares are fixed, because the split is stratified.

    Examples
    --------
    >>> # 10% of the messages are spam, but the logits are right for equal shares.
    >>> rng = np.random.default_rng(0)
    >>> labels = (rng.random(2000) < 0.1).astype(int)
    >>> score = rng.normal(4 * labels - 2, 2)
    >>> logits = np.column_stack([np.zeros(2000), score])
    >>> fitted = fit_prior(logits, labels, np.arange(2000), confidence=0.95)
    >>> fitted.prior.round(2), fitted.low.round(2), fitted.high.round(2)
    (array([0.5, 0.5]), array([0.45, 0.45]), array([0.55, 0.55]))
    """
    classes = logits.shape[1]
    share = np.bincount(labels, minlength=classes) / len(labels)
    shift = fit_shift(logits, labels)
    posterior = softmax(logits + shift, axis=1)
    residual = np.eye(classes)[labels] - posterior
    _, group = np.unique(groups, return_inverse=True)
    group_sums = np.zeros((group.max() + 1, classes))
    np.add.at(group_sums, group, residual)
    # Only differences between classes are identified, so the last class is fixed.
    bread = np.zeros((classes, classes))
    bread[:-1, :-1] = np.linalg.inv(fisher_information(posterior)[:-1, :-1] + LEAST_INFORMATION * np.eye(classes - 1))
    sandwich = bread @ (group_sums.T @ group_sums) @ bread
    # The log odds of class c are eta_c - log sum of the others' exp(eta), eta = log share - b.
    log_prior = log_softmax(np.log(share) - shift)
    log_rest = np.array([logsumexp(np.delete(log_prior, label)) for label in range(classes)])
    jacobian = np.eye(classes) - np.where(np.eye(classes, dtype=bool), 0, np.exp(log_prior - log_rest[:, None]))
    variance = [np.einsum("ci,ij,cj->c", jacobian, covariance, jacobian) for covariance in (sandwich, copies * bread)]
    deviation = np.sqrt(np.maximum(*variance).clip(min=0))
    log_odds = log_prior - log_rest
    quantile = ndtri((1 + confidence) / 2)
    # Bonferroni. The share of the last class follows from the others.
    joint = ndtri(1 - (1 - confidence) / 2 / (classes - 1)) / quantile
    low, high = expit(log_odds - quantile * deviation), expit(log_odds + quantile * deviation)
    return FittedPrior(prior=np.exp(log_prior), low=low, high=high, joint=float(joint))


def effective_prior(declared: np.ndarray | None, fitted: FittedPrior) -> np.ndarray:
    """The declared prior (K,), or the fitted one if the measurement contradicts it.

    Examples
    --------
    >>> fitted = FittedPrior(prior=np.array([0.7, 0.3]), low=np.array([0.6, 0.2]), high=np.array([0.8, 0.4]))
    >>> effective_prior(np.array([0.65, 0.35]), fitted)
    array([0.65, 0.35])
    >>> effective_prior(np.array([0.95, 0.05]), fitted)
    array([0.7, 0.3])
    """
    return declared if declared is not None and fitted.contains(declared) else fitted.prior
