"""Whether a shift of the class prior alone explains a window of messages without labels.

Under label shift the distribution of anything that can be measured on a message is a mixture of its distributions in the
classes.
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

# Labelled messages in a bin of the scores, and at most so many bins for each class that is decided for.
MESSAGES_PER_BIN, MOST_BINS = 15, 4
# Smaller differences matter to nobody, however many messages show them: share of messages, and standard deviations.
NEGLIGIBLE_SHARE, NEGLIGIBLE_DEVIATIONS = 0.02, 0.15
LEAST_ODDS = 1e-300
SUM_TO_ONE = 1e5
# One text of a thousand digits is no odder than this.
MOST_DEVIATIONS = 10.0


@dataclass(frozen=True, kw_only=True)
class ScoredMessages:
    """Messages as a model sees them: posteriors (n, K), near-duplicate groups (n,), descriptors by name (n,)."""

    posteriors: np.ndarray
    groups: np.ndarray
    descriptors: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One test of a window against the mixtures of the classes.

    effect : the share of the messages that are in other bins of the score than any mixture says, or the difference of a
        descriptor's mean rank in standard deviations.
    """

    name: str
    p: float
    effect: float
    negligible: float

    def rejects(self, level: float) -> bool:
        """Whether the difference is real at a level, and large enough to matter."""
        return self.p < level and abs(self.effect) > self.negligible


def log_odds(posteriors: np.ndarray) -> np.ndarray:
    """Log odds (n,) of the most probable class: posteriors (n, K)."""
    return -logit(np.maximum(np.sort(posteriors, axis=1)[:, :-1].sum(axis=1), LEAST_ODDS))


def posterior_bins(reference: np.ndarray, posteriors: np.ndarray) -> tuple[np.ndarray, int]:
    """The bin (n,) of each message by its posteriors (n, K), and the number of bins.

    A bin is the most probable class and how sure that is; of the labelled ones, posteriors (m, K), each holds as many.
    """
    called, odds = reference.argmax(axis=1), log_odds(reference)
    bins, first = np.empty(len(posteriors), dtype=np.int64), 0
    for label in range(reference.shape[1]):
        own = odds[called == label]
        number = int(np.clip(len(own) // MESSAGES_PER_BIN, 1, MOST_BINS))
        edges = np.unique(np.quantile(own, np.arange(1, number) / number)) if number > 1 else np.empty(0)
        rows = posteriors.argmax(axis=1) == label
        bins[rows] = first + np.searchsorted(edges, log_odds(posteriors[rows]))
        first += len(edges) + 1
    return bins, first


def score_finding(reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages) -> Finding:
    """Whether the window's scores fit any mixture of those of the labelled messages, classes (m,).

    Minimum chi-square over the prior, for not knowing the classes' distributions too, and for groups (Rao and Scott 1981).
    """
    labels = reference.posteriors.shape[1]
    bins, count = posterior_bins(reference.posteriors, reference.posteriors)
    if count <= labels:
        return Finding(name="scores", p=1.0, effect=0.0, negligible=NEGLIGIBLE_SHARE)
    one_hot = np.eye(count)
    conditionals = class_conditionals(one_hot[bins], classes, reference.groups, labels, one_hot)
    of_window = one_hot[posterior_bins(reference.posteriors, window.posteriors)[0]]
    found = of_window.mean(axis=0)
    effect = np.mean([design_effect(column, window.groups) for column in of_window.T])
    prior = np.full(labels, 1 / labels)
    # The covariance is that of the mixture, whose prior is sought.
    for _ in range(3):
        covariance = effect * conditionals.mixture(prior) / len(of_window) + conditionals.of_mixture(prior)
        # The last bin follows from the others.
        root = np.linalg.cholesky(np.linalg.inv(covariance[:-1, :-1])).T
        design = root @ conditionals.mean[:, :-1].T
        # Shares are not negative, and a row far heavier than the others makes their sum 1.
        heavy = SUM_TO_ONE * np.abs(design).max()
        prior = nnls(np.vstack([design, np.full(labels, heavy)]), np.append(root @ found[:-1], heavy))[0]
        prior /= prior.sum()
    residual = found - prior @ conditionals.mean
    statistic = float(((root @ residual[:-1]) ** 2).sum())
    return Finding(
        name="scores",
        p=float(chi2.sf(statistic, count - labels)),
        effect=float(np.abs(residual).sum() / 2),
        negligible=NEGLIGIBLE_SHARE,
    )


def relative_ranks(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share (n,) of the reference (m,) below each value (n,), with half of its equals: one odd message moves no mean rank."""
    ordered = np.sort(reference)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))


def descriptor_finding(
    name: str, reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages, prior: np.ndarray
) -> Finding:
    """Whether a descriptor's mean rank is that of the mixture by the window's prior (K,), which is itself estimated.

    What the classes differ in is taken off along the posteriors, whose means give the prior: the rest has one mean in all
    classes, whatever the prior (a linear control variate).
    """
    labels = reference.posteriors.shape[1]
    values, found = (relative_ranks(reference.descriptors[name], each.descriptors[name]) for each in (reference, window))
    columns = np.column_stack([values, reference.posteriors[:, :-1]])
    means = class_conditionals(columns, classes, reference.groups, labels).mean
    slope = np.linalg.lstsq(means[:-1, 1:] - means[-1, 1:], means[:-1, 0] - means[-1, 0], rcond=None)[0]
    rest = values - reference.posteriors[:, :-1] @ slope
    of_window = found - window.posteriors[:, :-1] @ slope
    conditionals = class_conditionals(rest[:, None], classes, reference.groups, labels)
    difference = float(of_window.mean() - prior @ conditionals.mean[:, 0])
    of_mean = sums_of_groups((of_window - of_window.mean())[:, None], window.groups)
    variance = float((of_mean**2).sum()) / len(of_window) ** 2 + conditionals.of_mixture(prior)[0, 0]
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
    """Every test of whether label shift explains the window, with its p-value multiplied by the number of tests of its kind."""
    each = [descriptor_finding(name, reference, classes, window, prior) for name in reference.descriptors]
    together = [replace(one, p=min(1.0, one.p * len(each))) for one in each]
    return [score_finding(reference, classes, window), *together]


def z_scores(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,) in standard deviations from the mean of the reference (m,)."""
    spread = reference.std()
    return np.clip((values - reference.mean()) / (spread if spread > 0 else 1.0), -MOST_DEVIATIONS, MOST_DEVIATIONS)


def most_atypical(reference: ScoredMessages, window: ScoredMessages, count: int) -> np.ndarray:
    """Rows of the window, at most `count` and one of each group, that are least like the labelled messages, the least first.

    A logistic regression tells window from reference by the descriptors and the surest class's log odds, each in standard
    deviations from the reference's mean, and by how far that is (density ratio by classification: Bickel et al. 2009).
    """
    odds = log_odds(reference.posteriors)
    columns = [(odds, log_odds(window.posteriors))]
    columns += [(values, window.descriptors[name]) for name, values in reference.descriptors.items()]
    table = np.column_stack([np.concatenate([z_scores(known, known), z_scores(known, new)]) for known, new in columns])
    features = np.column_stack([table, np.abs(table)])
    source = np.repeat([0, 1], [len(reference.groups), len(window.groups)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features, source)
    order = np.argsort(-model.decision_function(features[len(reference.groups) :]), kind="stable")
    _, first = np.unique(window.groups[order], return_index=True)
    rows: np.ndarray = order[np.sort(first)[:count]]
    return rows
