"""Precision, recall and F1 in production from a sample of labelled messages with known inclusion probabilities.

A label counts with the inverse of its message's inclusion probability, so that the sample stands for all messages of the
windows: Horvitz-Thompson totals, and their ratios. The messages of one template have the same class.

Source: Horvitz and Thompson (1952); Sarndal, Swensson and Wretman, Model Assisted Survey Sampling (1992), for ratios; Kish,
Survey Sampling (1965), for the effective sample size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.monitoring.estimated_performance import Estimated

# Draws for an interval, and the pseudo-label of the Jeffreys prior.
DRAWS = 4000
JEFFREYS = 0.5
# Share of the pseudo-labels of mistakes at the upper end of an interval: with all of them, it is too low where the model
# expects more mistakes than there are.
OPTIMISM = 0.5
# The beta distribution needs positive parameters.
LEAST = 1e-9
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class LabelledSample:
    """The n messages that were chosen in one or more windows.

    classes : (n,) class indices; -1 where people gave no label.
    predicted : (n,) class indices of the decisions.
    posteriors : (n, K).
    inclusion : (n,) probability of each message to be chosen.
    sizes : (n,) messages of each one's template in its window.
    strata : (n,) names. Strata of one name are pooled over windows, because each window has only a few labels of each.
    """

    classes: np.ndarray
    predicted: np.ndarray
    posteriors: np.ndarray
    inclusion: np.ndarray
    sizes: np.ndarray
    strata: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """The quality of the decisions on one class; None where no labelled message shows it.

    labelled : messages with a label of the class.
    """

    precision: Estimated | None
    recall: Estimated | None
    f1: Estimated | None
    labelled: int


def with_held_out_mistakes(
    posteriors: np.ndarray,
    predicted: np.ndarray,
    prior: np.ndarray,
    *,
    classes: np.ndarray,
    decisions: np.ndarray,
    held_out: np.ndarray,
) -> np.ndarray:
    """Posteriors (n, K) of a window that expect the mistakes that held-out messages show beyond what their posteriors expect.

    Calibration fits all scores at once, so it can miss the few mistakes whose scores are near 0 or 1. Nothing shows at which
    scores the missing ones are, so they are spread evenly over the messages with the same decision.

    predicted : (n,) class indices of the decisions.
    prior : (K,) of the window.
    classes, decisions : (m,) of the held-out messages. held_out : (m, K) their posteriors.

    Examples
    --------
    >>> classes = np.repeat([0, 1], [900, 100])
    >>> held_out = np.eye(2)[classes]
    >>> classes[:9] = 1
    >>> decisions = held_out.argmax(axis=1)
    >>> with_held_out_mistakes(
    ...     np.eye(2), np.array([0, 1]), np.array([0.5, 0.5]), classes=classes, decisions=decisions, held_out=held_out
    ... ).round(3)
    array([[0.924, 0.076],
           [0.   , 1.   ]])
    """
    support = np.maximum(1, np.bincount(classes, minlength=len(prior)))
    raised = posteriors.copy()
    for decision in np.unique(predicted):
        rows, of_held_out = predicted == decision, decisions == decision
        observed = np.bincount(classes[of_held_out], minlength=len(prior))
        missing = np.maximum(0.0, observed - held_out[of_held_out].sum(axis=0)) / support
        missing[decision] = 0.0
        raised[rows] += prior * missing / rows.mean()
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def response_weights(sample: LabelledSample) -> np.ndarray:
    """How many messages each labelled message stands for (n,); 0 for one without a label.

    The labels of a stratum stand for its chosen messages without a label, too. People label the messages in random order, so
    that those with a label are a random part. Each stratum needs a label: nothing stands for the messages of one without any.

    Examples
    --------
    >>> sample = LabelledSample(
    ...     classes=np.array([0, -1, 1]), predicted=np.array([0, 0, 1]), posteriors=np.full((3, 2), 0.5),
    ...     inclusion=np.array([0.1, 0.1, 0.5]), sizes=np.ones(3), strata=np.array(["common-1", "common-1", "rare-1"]),
    ... )
    >>> response_weights(sample)
    array([20.,  0.,  2.])
    """
    labelled = sample.classes != UNLABELLED
    weights = 1 / sample.inclusion
    _, stratum = np.unique(sample.strata, return_inverse=True)
    chosen, answered = np.bincount(stratum, weights), np.bincount(stratum, weights * labelled)
    factor = np.divide(chosen, answered, out=np.zeros(len(chosen)), where=answered > 0)
    return np.where(labelled, weights * factor[stratum], 0.0)


def cell_draws(
    weights: np.ndarray,
    sizes: np.ndarray,
    members: np.ndarray,
    prior: tuple[float, float],
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws (draws,) of the number of messages of a class in a cell: messages of one stratum with or without one decision.

    The posterior of the class's share is a beta distribution, and the messages that were not chosen are binomial. A template
    that was certainly chosen is counted, not estimated.

    weights : (m,) messages that each label stands for.
    sizes : (m,) messages of each one's template.
    members : (m,) whether each is of the class.
    prior : pseudo-labels of the class and of the others.

    Examples
    --------
    >>> members, rng = np.repeat([True, False], [8, 2]), np.random.default_rng(0)
    >>> drawn = cell_draws(np.full(10, 10.0), np.ones(10), members, (0.5, 0.5), draws=4000, rng=rng)
    >>> np.quantile(drawn, [0.025, 0.5, 0.975])
    array([51., 79., 95.])
    """
    # Rounding of the weights must not make a certain template uncertain.
    uncertain = weights > sizes * (1 + 1e-9)
    counted = float((sizes * members).sum())
    if not uncertain.any():
        return np.full(draws, counted)
    own = weights[uncertain]
    effective = own.sum() ** 2 / (own**2).sum()
    found = effective * (own * members[uncertain]).sum() / own.sum()
    share = rng.beta(found + max(LEAST, prior[0]), effective - found + max(LEAST, prior[1]), size=draws)
    unseen = max(0, round(float((own - sizes[uncertain]).sum())))
    return counted + rng.binomial(unseen, share)


@dataclass(frozen=True, kw_only=True)
class ClassDraws:
    """Draws (draws,) of a class's hits, of its messages with another decision, and of the other messages with its decision."""

    hits: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray


def class_draws(
    sample: LabelledSample, weights: np.ndarray, label: int, mistakes: float, draws: int, rng: np.random.Generator
) -> ClassDraws:
    """Draws for a class, cell by cell.

    The prior has the pseudo-labels of Jeffreys or, where these are more than the model expects among the labelled messages, as
    many as the model expects.

    mistakes : share of the pseudo-labels of mistakes that count, between 0 and 1.
    """
    labelled, predicted = weights > 0, sample.predicted == label
    hits, misses, false_alarms = (np.zeros(draws) for _ in range(3))
    for name in np.unique(sample.strata):
        for decided in (True, False):
            rows = labelled & (sample.strata == name) & (predicted == decided)
            if not rows.any():
                continue
            own = weights[rows]
            effective, expected = own.sum() ** 2 / (own**2).sum(), own @ sample.posteriors[rows, label] / own.sum()
            member, other = (min(JEFFREYS, float(effective * share)) for share in (expected, 1 - expected))
            prior = (member, mistakes * other) if decided else (mistakes * member, other)
            drawn = cell_draws(own, sample.sizes[rows], sample.classes[rows] == label, prior, draws, rng)
            if decided:
                hits += drawn
                false_alarms += np.maximum(own.sum() - drawn, 0)
            else:
                misses += drawn
    return ClassDraws(hits=hits, misses=misses, false_alarms=false_alarms)


def ratio(above: float, below: float, pessimistic: np.ndarray, optimistic: np.ndarray, confidence: float) -> Estimated | None:
    """A ratio with its equal-tailed interval, from draws of it; None if nothing that is labelled is below the line.

    As in the interval of Clopper and Pearson (1934), the lower end assumes more mistakes than the upper end does.

    Examples
    --------
    >>> draws = np.linspace(0.5, 0.9, 101)
    >>> ratio(8, 10, draws, draws + 0.1, confidence=0.9)
    Estimated(value=0.8, low=0.52, high=0.98)
    """
    if below <= 0:
        return None
    value, tail = above / below, (1 - confidence) / 2
    low, high = (float(np.nanquantile(draws, at)) for draws, at in ((pessimistic, tail), (optimistic, 1 - tail)))
    return Estimated(value=value, low=min(low, value), high=max(high, value))


def share_of(part: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The part (n,) of part and rest (n,); not a number where both are 0.

    Examples
    --------
    >>> share_of(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    array([0.75,  nan])
    """
    return np.divide(part, part + rest, out=np.full(len(part), np.nan), where=part + rest > 0)


def class_quality(
    sample: LabelledSample, label: int, *, confidence: float, rng: np.random.Generator, draws: int = DRAWS
) -> ClassQuality:
    """Precision, recall and F1 of one class, with intervals."""
    weights = response_weights(sample)
    member, predicted = sample.classes == label, sample.predicted == label
    worse, better = (class_draws(sample, weights, label, mistakes, draws, rng) for mistakes in (1.0, OPTIMISM))
    hit, assigned, of_class = (float(weights @ rows) for rows in (member & predicted, predicted, member))
    precisions = [share_of(drawn.hits, drawn.false_alarms) for drawn in (worse, better)]
    recalls = [share_of(drawn.hits, drawn.misses) for drawn in (worse, better)]
    f1s = [share_of(2 * drawn.hits, drawn.misses + drawn.false_alarms) for drawn in (worse, better)]
    return ClassQuality(
        precision=ratio(hit, assigned, precisions[0], precisions[1], confidence),
        recall=ratio(hit, of_class, recalls[0], recalls[1], confidence),
        f1=ratio(2 * hit, assigned + of_class, f1s[0], f1s[1], confidence),
        labelled=int(member.sum()),
    )


def labelled_quality(sample: LabelledSample, *, confidence: float, seed: int = 0, draws: int = DRAWS) -> list[ClassQuality]:
    """Precision, recall and F1 of each of the K classes, in their order, with intervals.

    Notes
    -----
    The estimated totals are unbiased whatever the posteriors are; a ratio of two totals has a bias that is small against its
    interval. The lower end allows for mistakes that no label shows: where the labels of a stratum show none, it relies on the
    posteriors for how many there may be.

    Examples
    --------
    >>> sample = LabelledSample(
    ...     classes=np.array([0] * 19 + [1] * 9 + [0, 1]), predicted=np.repeat([0, 1, 0], [19, 10, 1]),
    ...     posteriors=np.repeat([[0.99, 0.01], [0.1, 0.9], [0.7, 0.3]], [19, 10, 1], axis=0),
    ...     inclusion=np.repeat([0.02, 0.5, 0.25], [19, 10, 1]), sizes=np.ones(30),
    ...     strata=np.repeat(["common-1", "rare-1", "common-2"], [19, 10, 1]),
    ... )
    >>> spam = labelled_quality(sample, confidence=0.95)[1]
    >>> round(spam.precision.value, 3), round(spam.recall.value, 3)
    (0.9, 0.818)
    """
    rng = np.random.default_rng(seed)
    labels = range(sample.posteriors.shape[1])
    return [class_quality(sample, label, confidence=confidence, rng=rng, draws=draws) for label in labels]
