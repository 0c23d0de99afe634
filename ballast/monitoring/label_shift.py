"""Test whether a shift of the class prior alone explains a window of messages without labels.

Under label shift, the distribution of any property of a message is a mixture of its class-conditional distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls
from scipy.special import logit
from scipy.stats import chi2, norm
from sklearn.linear_model import LogisticRegression

from ballast.monitoring.quantification import class_conditionals, design_effect, sums_of_groups

# Labelled messages per bin of the scores, and the largest number of bins per predicted class.
MESSAGES_PER_BIN, MOST_BINS = 15, 4
# Smaller differences do not matter in practice, even if significant: share of messages, and standard deviations.
NEGLIGIBLE_SHARE, NEGLIGIBLE_DEVIATIONS = 0.02, 0.15
LEAST_ODDS = 1e-300
SUM_TO_ONE = 1e5
# Limits the influence of a single extreme text.
MOST_DEVIATIONS = 10.0


@dataclass(frozen=True, kw_only=True)
class ScoredMessages:
    """Messages with a model's posteriors (n, K), near-duplicate groups (n,) and descriptors by name (n,)."""

    posteriors: np.ndarray
    groups: np.ndarray
    descriptors: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one test of a window against mixtures of the classes.

    p : p-value.
    effect : share of the messages in other bins of the score than any mixture predicts, or the difference of a descriptor's
        mean rank in standard deviations.
    negligible : smaller effects are ignored.
    """

    name: str
    p: float
    effect: float
    negligible: float

    def rejects(self, level: float) -> bool:
        """Whether the difference is significant at a level, and not negligible."""
        return self.p < level and abs(self.effect) > self.negligible


def log_odds(posteriors: np.ndarray) -> np.ndarray:
    """Log odds (n,) of the most probable class: posteriors (n, K)."""
    return -logit(np.maximum(np.sort(posteriors, axis=1)[:, :-1].sum(axis=1), LEAST_ODDS))


def posterior_bins(reference: np.ndarray, posteriors: np.ndarray) -> tuple[np.ndarray, int]:
    """The bin (n,) of each message by its posteriors (n, K), and the number of bins.

    A bin is a predicted class and a range of its log odds. Within a class, bins hold equally many reference messages, with
    posteriors (m, K).
    """
    predicted, odds = reference.argmax(axis=1), log_odds(reference)
    bins, first = np.empty(len(posteriors), dtype=np.int64), 0
    for label in range(reference.shape[1]):
        own = odds[predicted == label]
        number = int(np.clip(len(own) // MESSAGES_PER_BIN, 1, MOST_BINS))
        edges = np.unique(np.quantile(own, np.arange(1, number) / number)) if number > 1 else np.empty(0)
        rows = posteriors.argmax(axis=1) == label
        bins[rows] = first + np.searchsorted(edges, log_odds(posteriors[rows]))
        first += len(edges) + 1
    return bins, first


def score_finding(reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages) -> Finding:
    """Test whether the window's scores fit any mixture of those of the labelled messages with classes (m,).

    Minimum chi-square over the prior. The covariance includes the estimation of the class-conditional distributions, and the
    design effect of groups (Rao and Scott 1981).
    """
    labels = reference.posteriors.shape[1]
    bins, count = posterior_bins(reference.posteriors, reference.posteriors)
    if count <= labels:
        return Finding(name="scores", p=1.0, effect=0.0, negligible=NEGLIGIBLE_SHARE)
    one_hot = np.eye(count)
    conditionals = class_conditionals(one_hot[bins], classes, reference.groups, labels, one_hot)
    window_bins = one_hot[posterior_bins(reference.posteriors, window.posteriors)[0]]
    observed = window_bins.mean(axis=0)
    effect = np.mean([design_effect(column, window.groups) for column in window_bins.T])
    prior = np.full(labels, 1 / labels)
    # The covariance depends on the prior, so both are iterated.
    for _ in range(3):
        covariance = effect * conditionals.mixture(prior) / len(window_bins) + conditionals.mixture_mean_covariance(prior)
        # The last bin follows from the others.
        root = np.linalg.cholesky(np.linalg.inv(covariance[:-1, :-1])).T
        design = root @ conditionals.mean[:, :-1].T
        # Nonnegative shares; a row with a large weight makes them sum to 1.
        heavy = SUM_TO_ONE * np.abs(design).max()
        prior = nnls(np.vstack([design, np.full(labels, heavy)]), np.append(root @ observed[:-1], heavy))[0]
        prior /= prior.sum()
    residual = observed - prior @ conditionals.mean
    statistic = float(((root @ residual[:-1]) ** 2).sum())
    return Finding(
        name="scores",
        p=float(chi2.sf(statistic, count - labels)),
        effect=float(np.abs(residual).sum() / 2),
        negligible=NEGLIGIBLE_SHARE,
    )


def relative_ranks(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Relative rank (n,) of each value among the reference (m,); ties count half. Single outliers barely move a mean rank."""
    ordered = np.sort(reference)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))


def descriptor_finding(
    name: str, reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages, prior: np.ndarray
) -> Finding:
    """Test whether a descriptor's mean rank is that of the mixture with the window's estimated prior (K,).

    A linear control variate along the posteriors removes the differences between classes. The rest has the same mean in all
    classes, so the error of the estimated prior does not matter.
    """
    labels = reference.posteriors.shape[1]
    values, new_values = (
        relative_ranks(reference.descriptors[name], messages.descriptors[name]) for messages in (reference, window)
    )
    columns = np.column_stack([values, reference.posteriors[:, :-1]])
    means = class_conditionals(columns, classes, reference.groups, labels).mean
    slope = np.linalg.lstsq(means[:-1, 1:] - means[-1, 1:], means[:-1, 0] - means[-1, 0], rcond=None)[0]
    rest = values - reference.posteriors[:, :-1] @ slope
    window_rest = new_values - window.posteriors[:, :-1] @ slope
    conditionals = class_conditionals(rest[:, None], classes, reference.groups, labels)
    difference = float(window_rest.mean() - prior @ conditionals.mean[:, 0])
    group_sums = sums_of_groups((window_rest - window_rest.mean())[:, None], window.groups)
    variance = float((group_sums**2).sum()) / len(window_rest) ** 2 + conditionals.mixture_mean_covariance(prior)[0, 0]
    deviation = float(values.std())
    if variance == 0 or deviation == 0:
        return Finding(name=name, p=float(difference == 0), effect=0.0, negligible=NEGLIGIBLE_DEVIATIONS)
    return Finding(
        name=name,
        p=float(2 * norm.sf(abs(difference) / np.sqrt(variance))),
        effect=difference / deviation,
        negligible=NEGLIGIBLE_DEVIATIONS,
    )


def findings(reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages, prior: np.ndarray) -> list[Finding]:
    """All tests of whether label shift explains the window. P-values of descriptors are multiplied by their number."""
    by_descriptor = [descriptor_finding(name, reference, classes, window, prior) for name in reference.descriptors]
    adjusted = [replace(finding, p=min(1.0, finding.p * len(by_descriptor))) for finding in by_descriptor]
    return [score_finding(reference, classes, window), *adjusted]


def z_scores(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,) in standard deviations from the mean of the reference (m,)."""
    spread = reference.std()
    return np.clip((values - reference.mean()) / (spread if spread > 0 else 1.0), -MOST_DEVIATIONS, MOST_DEVIATIONS)


def most_atypical(reference: ScoredMessages, window: ScoredMessages, count: int) -> np.ndarray:
    """Rows of the `count` messages of the window that differ most from the labelled messages, at most one per group.

    A logistic regression separates window and reference by z-scores of the descriptors and of the log odds, and by their
    absolute values (density ratio by classification: Bickel et al. 2009).
    """
    odds = log_odds(reference.posteriors)
    columns = [(odds, log_odds(window.posteriors))]
    columns += [(values, window.descriptors[name]) for name, values in reference.descriptors.items()]
    table = np.column_stack([np.concatenate([z_scores(old, old), z_scores(old, new)]) for old, new in columns])
    features = np.column_stack([table, np.abs(table)])
    source = np.repeat([0, 1], [len(reference.groups), len(window.groups)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features, source)
    order = np.argsort(-model.decision_function(features[len(reference.groups) :]), kind="stable")
    _, first = np.unique(window.groups[order], return_index=True)
    rows: np.ndarray = order[np.sort(first)[:count]]
    return rows
