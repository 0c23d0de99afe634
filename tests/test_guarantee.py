"""Guaranteed limits hold in production with their confidence, whatever the shares, the groups and the number of classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import binom

from ballast.evaluation.candidates import candidates_of
from ballast.evaluation.costs import decide
from ballast.evaluation.guarantee import certified, count_units, independent_units, unit_precision
from ballast.evaluation.operating_point import choose_operating_point, point_as_json
from ballast.evaluation.rules import Rule
from benchmarks.guarantee import RULES, SETTINGS, Setting, guaranteed, holds, redraw

REPEATS = 100


@pytest.mark.parametrize(
    "setting", [replace(SETTINGS[at], others=600, rare=120) for at in (0, 1, 2)], ids=lambda each: each.name
)
def test_a_guaranteed_limit_holds_and_one_without_often_does_not(setting: Setting) -> None:
    drawn = [redraw(setting, seed) for seed in range(REPEATS)]
    broken_without = 0
    for name in RULES:
        broken = sum(by_rule[f"{name}.guaranteed"]["met"] and not by_rule[f"{name}.guaranteed"]["holds"] for by_rule in drawn)
        broken_without += sum(not by_rule[f"{name}.plain"]["holds"] for by_rule in drawn)
        assert broken <= binom.ppf(0.999, REPEATS, 0.05), name
    # The simulation can fail: the rules without a guarantee break many limits.
    assert broken_without > 3 * binom.ppf(0.999, REPEATS, 0.05)


def test_a_probability_is_as_often_right_as_it_says() -> None:
    drawn = [redraw(SETTINGS[0], seed) for seed in range(REPEATS)]
    for name in RULES:
        of_rule = [by_rule[f"{name}.plain"] for by_rule in drawn]
        stated, held = (np.mean([result[key] for result in of_rule]) for key in ("probability", "holds"))
        # Three standard errors, and the little that the search of the threshold adds.
        assert abs(held - stated) < 0.12 + 0.05, name


def test_a_class_with_too_few_messages_is_reported_with_the_number_needed() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [2000, 20])
    logits = np.column_stack([np.zeros(len(labels)), rng.normal(size=len(labels)) + 8 * labels])
    for rule, needed, of_label in (
        (Rule(kind="recall", label=1, limit=0.9, guarantee=0.95), 29, True),
        (Rule(kind="precision", label=1, limit=0.9, guarantee=0.95), 29, True),
        (Rule(kind="budget", label=1, limit=10, guarantee=0.95), 2995, False),
        (Rule(kind="recall", label=1, limit=1.0, guarantee=0.95), None, True),
    ):
        point = choose_operating_point(rule, logits, labels, np.ones(2))
        assert point.guarantee is not None and not point.met and not point.guarantee.holds
        assert (point.guarantee.needed, point.guarantee.of_label) == (needed, of_label), rule.kind
        assert point.guarantee.units == (20 if of_label else 2000)
        plain = choose_operating_point(replace(rule, guarantee=None), logits, labels, np.ones(2))
        np.testing.assert_array_equal(point.costs, plain.costs)
    written = point_as_json(point, rule, ["ham", "spam"])
    assert written["guarantee"] == {"confidence": 0.95, "holds": False, "units": 20, "needed": None, "of_label": True}


def test_with_the_number_needed_the_guarantee_holds() -> None:
    for count, met in ((28, False), (29, True)):
        labels = np.repeat([0, 1], [4000, count])
        logits = np.column_stack([np.zeros(len(labels)), 8.0 * labels])
        for kind in ("recall", "precision"):
            rule = Rule(kind=kind, label=1, limit=0.9, guarantee=0.95)
            assert choose_operating_point(rule, logits, labels, np.ones(2)).met == met


def test_a_better_ranking_has_a_higher_guaranteed_recall_and_a_higher_confidence_a_safer_threshold() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [3000, 300])
    noise = rng.normal(size=len(labels))

    def recall(distance: float, confidence: float) -> float:
        logits = np.column_stack([np.zeros(len(labels)), distance * (noise + distance * labels)])
        point = choose_operating_point(
            Rule(kind="precision", label=1, limit=0.8, guarantee=confidence), logits, labels, np.ones(2)
        )
        assert point.met and point.probability is not None and point.probability >= confidence
        return float((decide(softmax(logits, axis=1), point.costs)[labels == 1] == 1).mean())

    assert recall(3.0, 0.9) < recall(4.0, 0.9)
    assert recall(3.0, 0.99) < recall(3.0, 0.8)


def test_copies_of_messages_add_nothing() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [1000, 100])
    logits = np.column_stack([np.zeros(len(labels)), 3 * rng.normal(size=len(labels)) + 9 * labels - 4])
    for rule in map(guaranteed, RULES.values()):
        once = choose_operating_point(rule, logits, labels, np.ones(2))
        copied = choose_operating_point(
            rule, np.repeat(logits, 3, axis=0), np.repeat(labels, 3), np.ones(2), np.repeat(np.arange(len(labels)), 3)
        )
        assert (once.met, once.guarantee, once.probability) == (copied.met, copied.guarantee, copied.probability)
        np.testing.assert_allclose(once.costs, copied.costs)


def test_a_mixed_group_is_a_unit_of_each_side_and_its_worst_message_counts() -> None:
    margins, classes, groups = np.array([5.0, 1.0, 4.0, -1.0]), np.array([1, 1, 0, 0]), np.array([7, 7, 7, 7])
    units = independent_units(margins, classes, 1, groups, np.ones(2))
    assert sorted(zip(units.scores.tolist(), units.positive.tolist(), strict=True)) == [(1.0, True), (4.0, False)]
    counted = count_units(units, np.array([4.5, 2.0, 0.0]), np.ones(2))
    assert counted.hits.tolist() == [0, 0, 1] and counted.wrong.tolist() == [0, 1, 1]


def test_a_rarer_class_in_production_needs_a_higher_precision_of_the_held_out_messages() -> None:
    margins, classes = np.arange(10.0), np.repeat([0, 1], 5)
    at = [
        unit_precision(0.9, independent_units(margins, classes, 1, np.arange(10), weights))
        for weights in (np.array([1.8, 0.2]), np.ones(2), np.array([0.2, 1.8]))
    ]
    assert at[0] > at[1] > at[2] and at[1] == pytest.approx(0.9)


def test_the_sequence_of_precision_tests_stops_at_its_first_failure() -> None:
    """100 correct messages, then 60 wrong ones, then 900 correct ones: the first sequences end in the dip."""
    positive = np.concatenate([np.ones(100), np.zeros(60), np.ones(900)]).astype(int)
    margins = -np.arange(len(positive), dtype=float)
    units = independent_units(margins, positive, 1, np.arange(len(positive)), np.ones(2))
    rule = Rule(kind="precision", label=1, limit=0.9, guarantee=0.95)
    passed = certified(rule, units, count_units(units, margins - 0.5, np.ones(len(positive))))
    assert passed[45:98].all() and not passed[110:400].any()


def test_another_mix_of_other_classes_keeps_the_guarantee() -> None:
    """Three classes: the other class that is confused is four times as frequent in production as in the held-out messages."""
    means = np.array([[3.0, 0, 0], [0, 3.0, 1.8], [0, 1.0, 3.5]])
    production, counts = np.array([0.5, 0.4, 0.1]), np.array([800, 100, 200])
    weights = production / (counts / counts.sum())
    rng = np.random.default_rng(3)
    fresh = np.repeat(np.arange(3), 10_000)
    fresh_logits = means[fresh] + rng.normal(size=(len(fresh), 3))
    rules = [Rule(kind="precision", label=2, limit=0.7), Rule(kind="budget", label=2, limit=600)]
    broken = dict.fromkeys([rule.kind for rule in rules], 0)
    met = dict.fromkeys([rule.kind for rule in rules], 0)
    for _ in range(60):
        labels = np.repeat(np.arange(3), counts)
        logits = means[labels] + rng.normal(size=(len(labels), 3))
        for rule in rules:
            point = choose_operating_point(replace(rule, guarantee=0.9), logits, labels, weights)
            assigned = decide(softmax(fresh_logits, axis=1), point.costs) == 2
            shares = production * np.bincount(fresh, weights=assigned) / 10_000
            value = shares[2] / shares.sum() if rule.kind == "precision" else -10_000 * shares[:2].sum() / production[:2].sum()
            met[rule.kind] += point.met
            broken[rule.kind] += point.met and value < (rule.limit if rule.kind == "precision" else -rule.limit)
    for kind in broken:
        assert met[kind] > 30 and broken[kind] <= binom.ppf(0.999, met[kind], 0.1), kind


def test_truths_of_the_simulation_are_those_of_drawn_messages() -> None:
    setting, rule = SETTINGS[2], RULES["precision"]
    rng = np.random.default_rng(4)
    labels = (rng.random(400_000) < 0.04).astype(int)
    scores = rng.normal(size=len(labels)) + setting.distance * labels
    log_odds = setting.distance * (scores - setting.distance / 2) + np.log(0.04 / 0.96)
    logits = np.column_stack([np.zeros(len(labels)), log_odds])
    point = choose_operating_point(replace(rule, limit=0.93), logits, labels, np.ones(2))
    assert holds(replace(rule, limit=0.92), setting, point) and not holds(replace(rule, limit=0.94), setting, point)
    margins = candidates_of(rule, logits, labels, np.ones(2), None).margins
    np.testing.assert_allclose(margins, np.diff(log_softmax(logits, axis=1)).ravel())
