"""Choose which messages of a scored window people should label: a sample with known inclusion probabilities.

Labels of the most interesting messages alone say nothing about production, because nothing is known about the others. Here
every message has a positive probability to be chosen. The estimates of `ballast.monitoring.labelled_quality` weight each label
by the inverse of that probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ballast.monitoring.probability_sampling import allocate, equal_parts, proportional_probabilities, systematic_rows

# Each stratum of the scores gets about this many labels; more strata follow the score more closely.
LABELS_PER_STRATUM, MOST_STRATA = 6, 8
# A stratum of neighbours has this many times more templates than labels.
NEIGHBOURS_PER_LABEL = 3
# With fewer labels, all messages are one stratum.
LEAST_STRATIFIED = 12
UNUSUAL, NEIGHBOUR, PREDICTED_COMMON, PREDICTED_RARE, ANY = "unusual", "neighbour", "common", "rare", "any"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of n messages of a window.

    posteriors : (n, K).
    predicted : (n,) class indices of the decisions.
    groups : (n,) near duplicates; each group is one template. At most one message of a template is chosen.
    common : index of the most common class. All other classes are rare.
    """

    posteriors: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray
    common: int


@dataclass(frozen=True, kw_only=True)
class Queue:
    """The b messages to label, in random order, so that the labels of the first ones are a sample, too.

    rows : (b,) of the window.
    strata : (b,) names.
    inclusion : (b,) probability of each message to be chosen.
    sizes : (b,) messages of each one's template.
    """

    rows: np.ndarray
    strata: np.ndarray
    inclusion: np.ndarray
    sizes: np.ndarray


def size_measure(scores: Scores, random: float) -> np.ndarray:
    """Shares (n,) of the labels that messages get: the more a message may change precision or recall, the more.

    Labels of a stratum are best spent in proportion to the standard deviation of what they show (Neyman 1934). A message with
    the posterior p of a class moves the class's precision by sqrt(p (1 - p)) / D if it is among the D messages of that
    decision, and its recall R by sqrt(p (1 - p)) abs(d - R) / T, where d is 1 for that decision and 0 otherwise, and T is the
    sum of p. The shares minimise the sum of the variances of both for all rare classes. A share `random` of the labels goes to
    all messages alike, because posteriors may be wrong.

    Source: Cochran (1977), section 5.5; Hesterberg (1995) for the defensive mixture.

    Examples
    --------
    >>> posteriors = np.array([[0.99, 0.01], [0.6, 0.4], [0.1, 0.9]])
    >>> scores = Scores(posteriors=posteriors, predicted=np.array([0, 0, 1]), groups=np.arange(3), common=0)
    >>> size_measure(scores, random=0.2).round(2)
    array([0.13, 0.4 , 0.47])
    """
    variance = np.zeros(len(scores.posteriors))
    for label in range(scores.posteriors.shape[1]):
        p, predicted = scores.posteriors[:, label], scores.predicted == label
        if label == scores.common or p.sum() == 0:
            continue
        # Less than one expected message would get all labels.
        recall, expected, assigned = p[predicted].sum() / p.sum(), max(1.0, p.sum()), max(1, predicted.sum())
        variance += p * (1 - p) * ((predicted / assigned) ** 2 + ((predicted - recall) / expected) ** 2)
    deviation = np.sqrt(variance)
    even = np.full(len(deviation), 1 / max(1, len(deviation)))
    return random * even + (1 - random) * deviation / deviation.sum() if deviation.sum() > 0 else even


def score_strata(measure: np.ndarray, rare: np.ndarray, risk: np.ndarray, budget: int) -> np.ndarray:
    """Strata (t,) of templates by their score, such as `common-1`: the higher the number, the more probably of a rare class.

    measure : (t,) share of the labels.
    rare : (t,) whether a rare class is predicted.
    risk : (t,) probability of a rare class.
    budget : labels for all of these templates.

    Examples
    --------
    >>> risk = np.array([0.01, 0.02, 0.3, 0.4, 0.9])
    >>> score_strata(np.full(5, 0.2), risk > 0.5, risk, budget=18).tolist()
    ['common-1', 'common-1', 'common-2', 'common-2', 'rare-1']
    """
    names = np.empty(len(measure), dtype=object)
    count = int(np.clip(budget // LABELS_PER_STRATUM, 1, MOST_STRATA))
    for name, own in ((PREDICTED_COMMON, np.flatnonzero(~rare)), (PREDICTED_RARE, np.flatnonzero(rare))):
        if len(own):
            parts = max(1, round(count * measure[own].sum() / measure.sum()))
            part = equal_parts(measure[own], np.argsort(risk[own], kind="stable"), parts)
            names[own] = [f"{name}-{at + 1}" for at in part]
    return names


def neighbour_templates(similarity: np.ndarray, template: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The `count` templates that are most similar to labelled messages of a rare class, among the allowed ones (t,).

    similarity : (n,) of each message, for example the largest cosine; messages without any similarity have 0.
    template : (n,) index of each message's template.

    Examples
    --------
    >>> similarity, template = np.array([0.1, 0.9, 0.7, 0.0]), np.array([0, 1, 2, 3])
    >>> neighbour_templates(similarity, template, allowed=np.array([True, False, True, True]), count=3)
    array([2, 0])
    """
    closest = np.zeros(len(allowed))
    np.maximum.at(closest, template, similarity)
    closest[~allowed] = 0
    order = np.argsort(-closest, kind="stable")[:count]
    return order[closest[order] > 0]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to spend the labels of a window.

    budget : messages to label.
    random : share of the labels that all messages get alike.
    neighbours : share of the labels for messages that are similar to known members of a rare class.
    """

    budget: int
    random: float
    neighbours: float


def strata_and_shares(
    scores: Scores, template: np.ndarray, wanted: Wanted, taken: np.ndarray, similarity: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """The stratum (t,) of each template, and the share of the labels of each stratum; templates that are taken have none."""
    strata = np.full(len(taken), "", dtype=object)
    if wanted.budget < LEAST_STRATIFIED:
        strata[~taken] = ANY
        return strata, {ANY: 1.0}
    sums = np.bincount(template, size_measure(scores, wanted.random))
    rare = np.bincount(template, scores.predicted != scores.common) > 0
    shares: dict[str, float] = {}
    labels = round(wanted.budget * wanted.neighbours)
    if similarity is not None and labels:
        close = neighbour_templates(similarity, template, ~rare & ~taken, NEIGHBOURS_PER_LABEL * labels)
        strata[close] = NEIGHBOUR
        shares |= {NEIGHBOUR: wanted.neighbours} if len(close) else {}
    rest = np.flatnonzero(~taken & (strata == ""))
    if len(rest):
        risk = np.bincount(template, 1 - scores.posteriors[:, scores.common]) / np.bincount(template)
        left = 1 - sum(shares.values())
        strata[rest] = score_strata(sums[rest], rare[rest], risk[rest], round(wanted.budget * left))
        of_rest = {str(name): float(sums[rest][strata[rest] == name].sum()) for name in np.unique(strata[rest].astype(str))}
        shares |= {name: left * share / sum(of_rest.values()) for name, share in of_rest.items()}
    return strata, shares


def design(
    scores: Scores, wanted: Wanted, *, unusual: np.ndarray | None = None, similarity: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index (n,) of each message's template, and each template's stratum (t,) and inclusion probability (t,).

    The probabilities are positive and sum to the budget, or to the number of templates if that is smaller. A message's own
    probability is that of its template divided by the number of the template's messages.

    unusual : (u,) rows of messages that are certainly chosen; the first ones, if they need more than half of the budget.
    similarity : (n,) of each message to known members of rare classes.

    Examples
    --------
    >>> posteriors = np.array([[0.99, 0.01]] * 75 + [[0.7, 0.3]] * 15 + [[0.1, 0.9]] * 10)
    >>> scores = Scores(
    ...     posteriors=posteriors, predicted=np.repeat([0, 1], [90, 10]), groups=np.arange(100), common=0
    ... )
    >>> template, strata, probabilities = design(scores, Wanted(budget=20, random=0.2, neighbours=0.2))
    >>> round(float(probabilities.sum()), 6), bool((probabilities > 0).all())
    (20.0, True)
    >>> {str(name): round(float(probabilities[strata == name].max()), 2) for name in np.unique(strata)}
    {'common-1': 0.11, 'common-2': 0.26, 'rare-1': 0.6}
    """
    _, template = np.unique(scores.groups, return_inverse=True)
    sizes = np.bincount(template)
    budget = min(wanted.budget, len(sizes))
    probabilities = np.zeros(len(sizes))
    certain = template[[] if unusual is None else unusual]
    certain = certain[np.sort(np.unique(certain, return_index=True)[1])][: budget // 2]
    probabilities[certain] = 1
    rest = Wanted(budget=budget - len(certain), random=wanted.random, neighbours=wanted.neighbours)
    strata, shares = strata_and_shares(scores, template, rest, probabilities > 0, similarity)
    strata[certain] = UNUSUAL
    members = [np.flatnonzero(strata == name) for name in shares]
    most = np.array([len(own) for own in members], dtype=np.int64)
    for own, count in zip(members, allocate(np.array(list(shares.values())), most, rest.budget), strict=True):
        probabilities[own] = proportional_probabilities(sizes[own], int(count))
    return template, strata, probabilities


def draw_queue(
    scores: Scores,
    wanted: Wanted,
    seed: int,
    *,
    unusual: np.ndarray | None = None,
    similarity: np.ndarray | None = None,
) -> Queue:
    """Draw the messages of a window to label; `design` describes the arguments. The same seed gives the same messages.

    Examples
    --------
    >>> posteriors = np.array([[0.99, 0.01]] * 75 + [[0.7, 0.3]] * 15 + [[0.1, 0.9]] * 10)
    >>> scores = Scores(
    ...     posteriors=posteriors, predicted=np.repeat([0, 1], [90, 10]), groups=np.arange(100), common=0
    ... )
    >>> queue = draw_queue(scores, Wanted(budget=20, random=0.2, neighbours=0.2), seed=0)
    >>> len(queue.rows), round(float((1 / queue.inclusion).sum()), 6)
    (20, 100.0)
    """
    template, strata, probabilities = design(scores, wanted, unusual=unusual, similarity=similarity)
    rng = np.random.default_rng(seed)
    chosen = [
        own[systematic_rows(probabilities[own], rng.permutation(len(own)), rng.random())]
        for own in (np.flatnonzero(strata == name) for name in np.unique(strata.astype(str)))
    ]
    templates = rng.permutation(np.concatenate([np.empty(0, dtype=np.int64), *chosen]))
    # One message of each template, each with the same probability.
    by_template, sizes = np.argsort(template, kind="stable"), np.bincount(template)
    first = np.cumsum(sizes) - sizes
    rows = by_template[first[templates] + rng.integers(sizes[templates])]
    return Queue(
        rows=rows,
        strata=strata[templates].astype(str),
        inclusion=probabilities[templates] / sizes[templates],
        sizes=sizes[templates],
    )
