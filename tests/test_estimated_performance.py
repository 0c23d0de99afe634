"""The estimated quality of a window without labels: identities, planted truths, the intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom

from ballast.evaluation.metrics import Decisions
from ballast.evaluation.statistic import LabelledScores
from ballast.monitoring import estimated_performance
from ballast.monitoring.estimated_performance import (
    Estimated,
    HeldOut,
    PerformanceProtocol,
    confusion_rates,
    estimate_performance,
    floor_names,
    mixture_shares,
    on_prior,
    performance,
)
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.quantification import estimate_prior, posterior_conditionals

TWO = np.array([0.87, 0.13])
EIGHT = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.04, 0.03])
# Distance between the scores of two classes, in standard deviations.
DISTANCE = 2.6


def names_of(prior: np.ndarray) -> list[str]:
    return [f"class {at}" for at in range(len(prior))]


def drawn(counts: np.ndarray, trained: np.ndarray, rng: np.random.Generator) -> HeldOut:
    """Messages with the exact posteriors of a model on the prior of its training, decided for the most probable class."""
    classes = np.repeat(np.arange(len(counts)), counts)
    scores = rng.normal(size=(len(classes), len(counts))) + DISTANCE * np.eye(len(counts))[classes]
    posteriors = softmax(DISTANCE * scores + np.log(trained), axis=1)
    return HeldOut(posteriors=posteriors, decisions=posteriors.argmax(axis=1), classes=classes, groups=np.arange(len(classes)))


def as_window(messages: HeldOut) -> ScoredMessages:
    return ScoredMessages(posteriors=messages.posteriors, groups=messages.groups, descriptors={})


def protocol(prior: np.ndarray, resamples: int = 300) -> PerformanceProtocol:
    return PerformanceProtocol(
        names=names_of(prior), costs=1 - np.eye(len(prior)), resamples=resamples, confidence=0.95, seed=0
    )


def estimated(held_out: HeldOut, window: HeldOut, resamples: int = 300) -> dict[str, Estimated]:
    """The estimate as the watch makes it: from the window's scores alone."""
    count = held_out.posteriors.shape[1]
    conditionals = posterior_conditionals(held_out.posteriors, held_out.classes, held_out.groups)
    prior = estimate_prior(window.posteriors, window.groups, conditionals, confidence=0.95).prior
    return estimate_performance(*on_prior(held_out, as_window(window), prior), protocol(np.ones(count), resamples))


def measured(messages: HeldOut, prior: np.ndarray) -> dict[str, float]:
    """The metrics of labelled messages, weighted to a prior, as the pipeline measures them."""
    counts = np.bincount(messages.classes, minlength=len(prior))
    preferences = np.eye(len(prior))[messages.decisions]
    scored = LabelledScores(
        names_of(prior), messages.classes, preferences, messages.groups, prior / (counts / len(messages.classes))
    )
    return {name: float(value) for name, (value,) in Decisions(scored)(np.ones((1, len(messages.groups)))).items()}


def moved_to(prior: np.ndarray, share: float) -> np.ndarray:
    """The prior with another share of its last class."""
    return np.append((1 - share) * prior[:-1] / prior[:-1].sum(), share)


def truth(prior: np.ndarray, trained: np.ndarray) -> dict[str, float]:
    """The metrics in a population with this prior, from 50,000 messages of each class."""
    messages = drawn(np.full(len(prior), 50_000), trained, np.random.default_rng(99))
    rates = confusion_rates(messages.classes, messages.decisions, len(prior))
    values = performance(prior[None], rates[None], names_of(prior), 1 - np.eye(len(prior)))
    return {name: float(value) for name, (value,) in values.items()}


@pytest.mark.parametrize("trained", [TWO, EIGHT])
@pytest.mark.parametrize("share", [None, 0.01, 0.5])
def test_at_a_known_prior_the_estimate_is_what_labels_show(trained: np.ndarray, share: float | None) -> None:
    """At the held-out prior too, which is `None`: the estimated quality equals the measured one."""
    held_out = drawn(np.round(2000 * trained).astype(int), trained, np.random.default_rng(0))
    own = np.bincount(held_out.classes) / len(held_out.classes)
    prior = own if share is None else moved_to(own, share)
    found = estimate_performance(held_out, as_window(held_out), prior, protocol(trained, 20))
    shown = measured(held_out, prior)
    for label in names_of(trained):
        for metric in ("precision", "recall", "f1", "share"):
            assert found[f"{label}.{metric}"].value == pytest.approx(shown[f"{label}.{metric}"], abs=1e-12), (label, metric)
    assert found["cost"].value == pytest.approx(1 - shown["accuracy"], abs=1e-12)
    wrong = sum(found[f"{label}.wrongly_assigned_per_10000"].value for label in names_of(trained))
    assert wrong == pytest.approx(10_000 * (1 - shown["accuracy"]), abs=1e-8)


@pytest.mark.parametrize(("trained", "share"), [(TWO, 0.02), (TWO, 0.5), (EIGHT, 0.3)])
def test_a_planted_quality_is_found_after_the_prior_moved(trained: np.ndarray, share: float) -> None:
    rng = np.random.default_rng(1)
    held_out = drawn(np.full(len(trained), 20_000), trained, rng)
    prior = moved_to(trained, share)
    found, expected = estimated(held_out, drawn(np.round(30_000 * prior).astype(int), trained, rng)), truth(prior, trained)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=0.1, abs=0.005), name
    # What the held-out messages show is another precision.
    label = names_of(trained)[-1]
    assert abs(measured(held_out, trained)[f"{label}.precision"] - expected[f"{label}.precision"]) > 0.04
    assert abs(found[f"{label}.precision"].value - expected[f"{label}.precision"]) < 0.015


def test_posteriors_on_the_prior_of_the_window_give_it_more_precisely() -> None:
    """At a small share, whether the posteriors are calibrated or not."""
    prior, errors = moved_to(TWO, 0.01), np.empty((2, 2, 40))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        held_out, window = drawn(rng.multinomial(1500, TWO), TWO, rng), drawn(rng.multinomial(3000, prior), TWO, rng)
        for at, temperature in enumerate((1.0, 1.5)):
            scaled = [softmax(np.log(each.posteriors) / temperature, axis=1) for each in (held_out, window)]
            reference, seen = replace(held_out, posteriors=scaled[0]), replace(window, posteriors=scaled[1])
            conditionals = posterior_conditionals(scaled[0], held_out.classes, held_out.groups)
            first = estimate_prior(scaled[1], window.groups, conditionals, confidence=0.95).prior
            errors[at, :, seed] = first[1] - 0.01, on_prior(reference, as_window(seen), first)[2][1] - 0.01
    for first, second in errors:
        assert second.std() < 0.9 * first.std()
        # The pseudo-messages at the corners lower a share of 1% by 0.0005.
        assert abs(second.mean() + 0.0005) < 3 * second.std() / np.sqrt(40)


@pytest.mark.parametrize(("trained", "share", "size"), [(TWO, 0.02, 1000), (TWO, 0.4, 500), (EIGHT, 0.1, 1000)])
def test_the_intervals_hold_the_truth_as_often_as_they_say(trained: np.ndarray, share: float, size: int) -> None:
    prior = moved_to(trained, share)
    expected, label = truth(prior, trained), names_of(trained)[-1]
    held = dict.fromkeys((f"{label}.precision", f"{label}.recall", f"{label}.f1", f"{label}.share", "cost"), 0)
    simulations = 60 if len(trained) == 2 else 30
    for seed in range(simulations):
        rng = np.random.default_rng(seed)
        held_out = drawn(rng.multinomial(1200, trained), trained, rng)
        found = estimated(held_out, drawn(rng.multinomial(size, prior), trained, rng), 200)
        for name in held:
            held[name] += found[name].low <= expected[name] <= found[name].high
    # The ends of the binomial at 95%, in 99.9% of such tests.
    assert all(count >= binom.ppf(0.001, simulations, 0.95) for count in held.values()), held
    assert sum(held.values()) < 0.995 * simulations * len(held), held


def test_a_mistake_that_no_held_out_message_shows_is_possible() -> None:
    classes = np.repeat([0, 1], [300, 50])
    posteriors = np.where(np.eye(2)[classes] > 0, 0.97, 0.03)
    held_out = HeldOut(posteriors=posteriors, decisions=classes, classes=classes, groups=np.arange(350))
    of_window = np.repeat([0, 1], [990, 10])
    window = replace(held_out, posteriors=np.where(np.eye(2)[of_window] > 0, 0.97, 0.03), groups=np.arange(1000))
    precision = estimated(held_out, window)["class 1.precision"]
    assert precision.value == precision.high == 1 and precision.low < 0.8


def test_a_class_without_held_out_messages_has_wide_intervals() -> None:
    held_out = drawn(np.array([300, 100, 0]), np.full(3, 1 / 3), np.random.default_rng(0))
    found = estimate_performance(held_out, as_window(held_out), np.array([0.6, 0.2, 0.2]), protocol(np.ones(3)))
    recall = found["class 2.recall"]
    assert recall.value == pytest.approx(1 / 3) and recall.low < 0.05 and recall.high > 0.95
    assert all(np.isfinite([metric.value, metric.low, metric.high]).all() for metric in found.values())


def repeated(messages: HeldOut, times: int, *, grouped: bool) -> HeldOut:
    """Each message several times: as near duplicates of one group, or as independent messages."""
    rows = np.repeat(np.arange(len(messages.classes)), times)
    return HeldOut(
        posteriors=messages.posteriors[rows],
        decisions=messages.decisions[rows],
        classes=messages.classes[rows],
        groups=rows if grouped else np.arange(len(rows)),
    )


def test_near_duplicates_widen_the_intervals() -> None:
    held_out = drawn(np.array([870, 130]), TWO, np.random.default_rng(0))
    window = drawn(np.array([160, 40]), TWO, np.random.default_rng(1))

    def width(of_held_out: HeldOut, of_window: HeldOut, metric: str) -> float:
        found = estimated(of_held_out, of_window)[f"class 1.{metric}"]
        return found.high - found.low

    for metric, pairs in {
        "recall": [(repeated(held_out, 9, grouped=grouped), window) for grouped in (True, False)],
        "share": [(held_out, repeated(window, 9, grouped=grouped)) for grouped in (True, False)],
    }.items():
        together, apart = (width(*pair, metric) for pair in pairs)
        assert together > 2 * apart, metric


def test_a_large_window_is_drawn_in_sets_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = drawn(np.array([870, 130]), TWO, np.random.default_rng(0))
    window = drawn(np.array([8000, 500]), TWO, np.random.default_rng(1))
    whole = estimated(held_out, window, 1000)
    monkeypatch.setattr(estimated_performance, "MOST_UNITS", 400)
    pooled = estimated(held_out, window, 1000)
    for name, metric in whole.items():
        assert pooled[name].value == metric.value
        assert pooled[name].high - pooled[name].low == pytest.approx(metric.high - metric.low, rel=0.3), name


def test_the_same_seed_gives_the_same_intervals_in_x() -> None:
    held_out = drawn(np.array([870, 130]), TWO, np.random.default_rng(0))
    assert estimated(held_out, held_out) == estimated(held_out, held_out)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_shares_of_a_mixture_are_the_closest_on_the_simplex(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    means, observed = rng.dirichlet(np.ones(count), (1, count)), rng.dirichlet(np.ones(count), 1)
    shares = mixture_shares(means, observed)
    assert shares.sum() == pytest.approx(1) and (shares >= -1e-12).all()

    def distance(of: np.ndarray) -> np.ndarray:
        return np.linalg.norm(of @ means[0] - observed, axis=1)

    assert distance(shares)[0] <= distance(rng.dirichlet(np.ones(count) / 2, 500)).min() + 1e-6


def test_scores_that_are_all_the_same_show_nothing() -> None:
    """A model that gives every message the same scores: the share of a class may be anything."""
    held_out = replace(drawn(np.array([100, 100]), TWO, np.random.default_rng(0)), posteriors=np.tile(TWO, (200, 1)))
    held_out = replace(held_out, decisions=np.zeros(200, dtype=int))
    found = estimate_performance(held_out, as_window(held_out), np.array([0.5, 0.5]), protocol(TWO))
    precision = found["class 0.precision"]
    assert precision.low < 0.1 and precision.high > 0.9


def test_floors_are_for_metrics_of_each_class() -> None:
    found = estimate_performance(
        drawn(np.array([20, 20]), TWO, np.random.default_rng(0)),
        as_window(drawn(np.array([20, 20]), TWO, np.random.default_rng(1))),
        TWO,
        protocol(TWO, 10),
    )
    assert set(floor_names(names_of(TWO))) < set(found)
