"""The class prior of a window: estimate, interval, whether label shift explains it, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from ballast.data.descriptors import NAMES, descriptors, vocabulary
from ballast.monitoring.challenge import ChallengeProtocol, Contender, challenge
from ballast.monitoring.decision import Feedback, Policy, RecallDrop, WindowDecision, assess_window
from ballast.monitoring.label_shift import ScoredMessages, findings, most_atypical, score_finding
from ballast.monitoring.quantification import classify_and_count, design_effect, emq, estimate_prior, posterior_conditionals
from ballast.monitoring.recall_drops import recall_drops

POLICY = Policy(confidence=0.95, false_alarm=0.005, negligible=0.01, tolerance=0.15, minimum_labels=20, margin=0.01)
PRIOR = np.array([0.87, 0.13])
LABELS = ["ham", "spam"]


def messages(
    counts: tuple[int, ...], seed: int, *, sure: float = 2.5, length: float = 0.0
) -> tuple[ScoredMessages, np.ndarray]:
    """Made-up scores of as many messages of each class, and their classes; the last class's texts are longer."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(classes), len(counts))) + 2 * sure * np.eye(len(counts))[classes]
    long = rng.normal(size=len(classes)) + (classes == len(counts) - 1) + length
    made = ScoredMessages(posteriors=softmax(logits, axis=1), groups=np.arange(len(classes)), descriptors={"length": long})
    return made, classes


def window(share: float, size: int, seed: int, **changes: float) -> ScoredMessages:
    rare = round(share * size)
    return messages((size - rare, rare), seed, **changes)[0]


REFERENCE, CLASSES = messages((870, 130), 0)


def verdict(
    seen: ScoredMessages, *, labels: tuple[int, int] = (0, 0), drops: list[RecallDrop] | None = None, **policy: float
) -> WindowDecision:
    return assess_window(
        REFERENCE,
        CLASSES,
        seen,
        PRIOR,
        replace(POLICY, **policy),  # type: ignore[arg-type]
        labels=LABELS,
        feedback=Feedback(new_labels=np.array(labels), drops=drops or []),
    )


def test_a_perfect_classifier_counts() -> None:
    posteriors = np.eye(2)[np.repeat([0, 1], [900, 100])]
    classes = np.repeat([0, 1], [5000, 5000])
    conditionals = posterior_conditionals(np.eye(2)[classes], classes, np.arange(10_000))
    found = estimate_prior(posteriors, np.arange(1000), conditionals, confidence=0.95)
    assert found.prior[1] == pytest.approx(0.1, abs=1e-3)
    # What remains is the chance of drawing 100 of 1,000 (Wilson).
    assert (found.low[1], found.high[1]) == pytest.approx((0.0829, 0.1202), abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=5).filter(lambda counts: sum(counts) > 0), st.integers(0, 99))
def test_an_estimate_is_a_prior_within_its_interval(counts: list[int], seed: int) -> None:
    known, classes = messages((40,) * len(counts), seed)
    seen, _ = messages(tuple(counts), seed + 1)
    conditionals = posterior_conditionals(known.posteriors, classes, known.groups)
    found = estimate_prior(seen.posteriors, seen.groups, conditionals, confidence=0.95)
    assert found.prior.sum() == pytest.approx(1)
    assert ((found.low >= 0) & (found.low <= found.prior) & (found.prior <= found.high) & (found.high <= 1)).all()
    assert (found.prior > 0).all()


def test_a_wider_confidence_is_a_wider_interval() -> None:
    conditionals = posterior_conditionals(REFERENCE.posteriors, CLASSES, REFERENCE.groups)
    seen = window(0.2, 500, 1)
    narrow, wide = (estimate_prior(seen.posteriors, seen.groups, conditionals, confidence=each) for each in (0.9, 0.99))
    assert wide.low[1] < narrow.low[1] < narrow.high[1] < wide.high[1]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_interval_holds_the_truth_as_often_as_it_says(share: float) -> None:
    held = 0
    for seed in range(200):
        known, classes = messages((450, 65), 2 * seed, sure=1.5)
        rare = np.random.default_rng(seed).binomial(1000, share)
        seen, _ = messages((1000 - rare, rare), 2 * seed + 1, sure=1.5)
        conditionals = posterior_conditionals(known.posteriors, classes, known.groups)
        found = estimate_prior(seen.posteriors, seen.groups, conditionals, confidence=0.95)
        held += found.low[1] <= share <= found.high[1]
    # 99.9% of a binomial of 200 at 95%.
    assert 179 <= held <= 199


def test_counting_is_biased_and_adjusting_is_not() -> None:
    known, classes = messages((2000, 2000), 0, sure=0.7)
    seen = window(0.1, 20_000, 1, sure=0.7)
    conditionals = posterior_conditionals(known.posteriors, classes, known.groups)
    found = estimate_prior(seen.posteriors, seen.groups, conditionals, confidence=0.95)
    assert classify_and_count(seen.posteriors)[1] > 0.2
    assert found.prior[1] == pytest.approx(0.1, abs=0.02)


def test_emq_of_calibrated_posteriors_finds_the_prior() -> None:
    rng = np.random.default_rng(0)
    classes = rng.random(50_000) < 0.3
    # Two normal distributions a distance of 3 apart: the exact posterior at equal shares.
    odds = 3 * rng.normal(size=50_000) + 9 * (classes - 0.5)
    found = emq(softmax(np.column_stack([np.zeros(50_000), odds]), axis=1), np.array([0.5, 0.5]))
    assert found[1] == pytest.approx(0.3, abs=0.01)


def test_a_group_counts_once() -> None:
    values = np.repeat([0.0, 1.0], 50)
    assert design_effect(values, np.arange(100)) == 1
    assert design_effect(values, np.arange(100) // 10) == pytest.approx(10)
    assert design_effect(np.ones(5), np.zeros(5, dtype=int)) == 1


@pytest.mark.parametrize("share", [0.05, 0.13, 0.5, 0.95])
def test_a_shift_of_the_prior_alone_is_explained(share: float) -> None:
    seen = window(share, 2000, 5)
    assert not [each.name for each in findings(REFERENCE, CLASSES, seen, np.array([1 - share, share])) if each.rejects(0.001)]


def test_a_change_of_texts_or_scores_is_not() -> None:
    longer = findings(REFERENCE, CLASSES, window(0.13, 1000, 5, length=0.5), PRIOR)
    assert [each.name for each in longer if each.rejects(0.001)] == ["length"]
    blurred = findings(REFERENCE, CLASSES, window(0.13, 1000, 5, sure=1.0), PRIOR)
    assert "scores" in [each.name for each in blurred if each.rejects(0.001)]


def test_more_classes_and_constant_descriptors() -> None:
    known, classes = messages((300, 200, 100), 0)
    seen, _ = messages((100, 200, 600), 1)
    constant: Mapping[str, np.ndarray] = {"length": np.ones(600)}
    known, seen = replace(known, descriptors=constant), replace(seen, descriptors={"length": np.ones(900)})
    found = findings(known, classes, seen, np.array([1, 2, 6]) / 9)
    assert [each.rejects(0.001) for each in found] == [False, False]


@pytest.mark.parametrize("counts", [(1000, 0, 0), (0, 0, 1000), (500, 0, 500), (0, 900, 100)])
def test_classes_that_are_absent_are_explained(counts: tuple[int, int, int]) -> None:
    known, classes = messages((300, 200, 100), 0, sure=1.0)
    found = [score_finding(known, classes, messages(counts, seed, sure=1.0)[0]).p for seed in range(100, 200)]
    # 99.9% of a binomial of 100 at 1%; a share held at 0 makes it careful.
    assert sum(p < 0.01 for p in found) <= 6


def test_groups_make_a_test_careful() -> None:
    seen = window(0.13, 1000, 5, sure=1.6)
    together = replace(seen, groups=np.arange(1000) // 50)
    assert score_finding(REFERENCE, CLASSES, together).p > score_finding(REFERENCE, CLASSES, seen).p


def test_steady() -> None:
    found = verdict(window(0.13, 1000, 5))
    assert (found.decision, found.unexplained) == ("steady", [])


def test_a_shift_without_labels_is_corrected_and_with_them_retrained() -> None:
    assert verdict(window(0.22, 1000, 5)).decision == "reprior"
    beyond = verdict(window(0.4, 1000, 5), labels=(500, 19))
    assert beyond.decision == "reprior"
    assert "needs 20 new labels of each class, but there are 500 of ham, 19 of spam" in beyond.reasons[-1]
    assert verdict(window(0.4, 1000, 5), labels=(20, 20)).decision == "retrain"
    assert verdict(window(0.22, 1000, 5), labels=(20, 20)).decision == "reprior"


def test_a_small_shift_is_none_however_sure() -> None:
    seen = window(0.145, 50_000, 5)
    assert verdict(seen, negligible=0.0).decision == "reprior"
    assert verdict(seen, negligible=0.03).decision == "steady"


def test_no_message_one_message_and_one_class() -> None:
    nothing = verdict(window(0.0, 0, 5))
    assert (nothing.decision, nothing.estimate, nothing.reasons) == ("investigate", None, ["the window has no messages"])
    for rare in (0.0, 1.0):
        assert verdict(window(rare, 1, 5)).decision == "steady"
    none, every = verdict(window(0.0, 1000, 5)), verdict(window(1.0, 1000, 5))
    assert (none.decision, every.decision) == ("reprior", "reprior")
    assert none.estimate is not None and 0 < none.estimate.prior[1] < 0.01


def test_another_kind_of_text_is_investigated_before_its_prior_is_believed() -> None:
    found = verdict(window(0.4, 1000, 5, length=2.0), labels=(500, 500))
    assert found.decision == "investigate"
    assert found.unexplained == ["length"]
    assert "length" in found.reasons[0]


def test_one_template_that_moves_the_prior_is_investigated() -> None:
    seen = window(0.25, 1000, 5)
    # All messages above the usual share are one message.
    groups = np.where(np.arange(1000) >= 870, 10_000, np.arange(1000))
    found = verdict(replace(seen, groups=groups))
    assert found.decision == "investigate"
    assert found.reasons == ["near duplicates move the class prior: 130 of 1000 messages are of one template"]


def test_a_drop_of_recall_asks_for_labels_or_a_retraining() -> None:
    called = np.where(np.arange(1000) % 50 == 0, 1 - CLASSES, CLASSES)
    fed = np.repeat([0, 1], [100, 60])
    worse = np.where((fed == 1) & (np.arange(160) % 3 == 0), 0, fed)
    assert recall_drops(CLASSES, called, fed, fed, POLICY, 2) == []
    drops = recall_drops(CLASSES, called, fed, worse, POLICY, 2)
    assert [(each.label, each.support) for each in drops] == [(1, 60)]
    assert drops[0].found == pytest.approx(2 / 3) and drops[0].expected > 0.95
    # Ten labels of a class say nothing.
    assert recall_drops(CLASSES, called, fed[:110], worse[:110], POLICY, 2) == []
    steady = window(0.13, 1000, 5)
    assert verdict(steady, drops=drops).decision == "investigate"
    assert verdict(steady, drops=drops, labels=(20, 20)).decision == "retrain"
    of_queue = verdict(steady, drops=[replace(drops[0], by_queue=True)])
    assert of_queue.reasons[0] == "recall of spam on 60 labelled messages of the queue, weighted, is 0.667, was 0.985"


def test_what_is_least_alike_comes_first_and_once_a_group() -> None:
    usual, odd = window(0.13, 300, 5), window(0.13, 20, 6, length=6.0)
    seen = ScoredMessages(
        posteriors=np.concatenate([usual.posteriors, odd.posteriors]),
        groups=np.concatenate([usual.groups, 1000 + np.arange(20) // 2]),
        descriptors={"length": np.concatenate([usual.descriptors["length"], odd.descriptors["length"]])},
    )
    rows = most_atypical(REFERENCE, seen, 8)
    assert len(rows) == 8 and (rows >= 300).all()
    assert len(set(seen.groups[rows])) == 8


def test_descriptors() -> None:
    found = descriptors(["", "123", "ABC abc!", "дом"], vocabulary(["abc"]))
    assert list(found.columns) == list(NAMES)
    assert found["digits"].tolist() == [0, 1, 0, 0]
    assert found["capitals"].tolist() == [0, 0, 3 / 8, 0]
    assert found["punctuation"].tolist() == [0, 0, 1 / 8, 0]
    assert found["unseen_words"].tolist() == [0, 0, 0, 1]
    assert found["word_length"].tolist() == [0, 0, 3, 3]
    assert found["other_scripts"].tolist() == [0, 0, 0, 1]
    assert len(descriptors([], vocabulary([]))) == 0


def test_a_challenger_is_measured_on_the_same_messages() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], [900, 100])
    good = softmax(rng.normal(size=(1000, 2)) + 6 * np.eye(2)[classes], axis=1)
    bad = softmax(rng.normal(size=(1000, 2)) + 2 * np.eye(2)[classes], axis=1)
    costs = 1 - np.eye(2)
    protocol = ChallengeProtocol(
        names=LABELS, prior=PRIOR, metric="macro_f1", margin=0.01, resamples=500, confidence=0.95, seed=0
    )

    def outcome(champion: np.ndarray, challenger: np.ndarray, **changes: object):  # type: ignore[no-untyped-def]
        contenders = (Contender(posteriors=each, costs=costs) for each in (champion, challenger))
        return challenge(*contenders, classes, np.arange(1000), replace(protocol, **changes))  # type: ignore[arg-type]

    same = outcome(good, good)
    assert (same.difference, same.low, same.high, same.not_worse) == (0, 0, 0, True)
    worse, better = outcome(good, bad), outcome(bad, good)
    assert not worse.not_worse and worse.high < 0
    assert better.not_worse and better.difference == pytest.approx(-worse.difference)
    # A rate of mistakes is better when it is lower.
    assert not outcome(good, bad, metric="ham.false_positive_rate").not_worse
    assert outcome(good, bad, margin=1.0).not_worse
