"""The estimated difference of two versions: it covers a planted truth, and what both versions share cancels out."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from ballast.evaluation.bootstrap import wilson_interval
from ballast.monitoring.estimated_performance import Estimated, HeldOut, PerformanceProtocol, estimate_performance
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.performance_difference import compared_metrics, estimate_difference, share_that_differs
from ballast.monitoring.quantification import adjusted_count, posterior_conditionals

HELD_OUT, WINDOW, SHARE = 1300, 1000, 0.13
# How far the scores of each version separate the classes, and how much their noise has in common.
SEPARATION, COMMON = (2.6, 2.1), 0.9
COSTS = np.array([[0.0, 5.0], [1.0, 0.0]])


def scores(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal scores (n, 2) of both versions for messages with classes (n,)."""
    noise = rng.multivariate_normal([0, 0], [[1, COMMON], [COMMON, 1]], len(classes))
    return noise + np.outer(classes - 0.5, SEPARATION)


def posteriors(of_version: np.ndarray, version: int) -> np.ndarray:
    """The true posteriors (n, 2) of a version's scores (n,) at the held-out share."""
    rare = expit(SEPARATION[version] * of_version + np.log(SHARE / (1 - SHARE)))
    return np.column_stack([1 - rare, rare])


def held_out(rng: np.random.Generator, groups: np.ndarray) -> list[HeldOut]:
    """The same held-out messages as both versions score them."""
    classes = (rng.random(HELD_OUT) < SHARE).astype(int)
    drawn = [posteriors(column, version) for version, column in enumerate(scores(classes, rng).T)]
    return [HeldOut(posteriors=own, decisions=own.argmax(axis=1), classes=classes, groups=groups) for own in drawn]


def window(rng: np.random.Generator, share: float) -> ScoredMessages:
    classes = (rng.random(WINDOW) < share).astype(int)
    return ScoredMessages(posteriors=posteriors(scores(classes, rng)[:, 0], 0), groups=np.arange(WINDOW), descriptors={})


def protocol(resamples: int = 200) -> PerformanceProtocol:
    return PerformanceProtocol(names=["ham", "spam"], costs=COSTS, resamples=resamples, confidence=0.95, seed=0)


def prior_of(version: HeldOut, messages: ScoredMessages) -> np.ndarray:
    return adjusted_count(messages.posteriors, posterior_conditionals(version.posteriors, version.classes, version.groups))


def truth(share: float) -> dict[str, float]:
    """The differences in all traffic with a share of the rare class."""
    rates = []
    for separation in SEPARATION:
        threshold = -np.log(SHARE / (1 - SHARE)) / separation
        false_positive, hit = norm.sf(threshold + separation / 2), norm.sf(threshold - separation / 2)
        rates.append(np.array([[[1 - false_positive, false_positive], [1 - hit, hit]]]))
    before, after = (compared_metrics(np.array([[1 - share, share]]), own, ["ham", "spam"], COSTS) for own in rates)
    return {name: float(after[name][0] - before[name][0]) for name in before}


def test_the_interval_covers_the_true_difference_where_the_prior_moved() -> None:
    rng, planted, runs = np.random.default_rng(1), truth(0.3), 40
    covered, worse = dict.fromkeys(planted, 0), 0
    for _ in range(runs):
        versions, messages = held_out(rng, np.arange(HELD_OUT)), window(rng, 0.3)
        found = estimate_difference(*versions, messages, prior_of(versions[0], messages), protocol())
        for name, value in planted.items():
            covered[name] += found[name].low <= value <= found[name].high
        worse += found["macro_f1"].high < 0
    # Of 40 intervals of 95%, fewer than 33 cover the truth once in 10,000 times.
    assert min(covered.values()) >= 33, covered
    assert planted["macro_f1"] < 0 and worse > runs / 2


def test_shared_held_out_messages_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(2)
    first, second = held_out(rng, np.arange(HELD_OUT))
    messages = window(rng, SHARE)
    prior = prior_of(first, messages)
    alone = HeldOut(posteriors=second.posteriors, decisions=second.decisions, classes=second.classes, groups=-1 - second.groups)

    def width(estimate: Estimated) -> float:
        return estimate.high - estimate.low

    paired, apart = (estimate_difference(first, other, messages, prior, protocol()) for other in (second, alone))
    single = estimate_performance(first, messages, prior, protocol())
    assert paired["spam.recall"].value == apart["spam.recall"].value
    assert width(paired["spam.recall"]) < 0.8 * width(apart["spam.recall"])
    assert width(apart["spam.recall"]) > 1.2 * width(single["spam.recall"])


def test_of_equal_decisions_the_difference_is_zero_within_a_narrow_interval() -> None:
    rng = np.random.default_rng(3)
    first, _ = held_out(rng, np.arange(HELD_OUT))
    messages = window(rng, SHARE)
    found = estimate_difference(first, first, messages, prior_of(first, messages), protocol())
    assert {estimate.value for estimate in found.values()} == {0.0}
    # A difference that no held-out message shows is possible.
    assert -0.02 < found["spam.recall"].low < 0 < found["spam.recall"].high < 0.02


def test_near_duplicates_count_as_few_messages() -> None:
    decided, other = np.zeros(100, dtype=int), np.repeat([0, 1], [80, 20])
    alone = share_that_differs(decided, other, np.arange(100), 0.95)
    assert (alone.low, alone.high) == wilson_interval(0.2, 100, 0.95)
    together = share_that_differs(decided, other, np.where(other == 1, -1, np.arange(100)), 0.95)
    assert together.value == alone.value and together.high - together.low > 1.5 * (alone.high - alone.low)
    none = share_that_differs(decided, decided, np.zeros(100, dtype=int), 0.95)
    assert none.value == 0 and none.high > 0.7
