"""The evaluation of many classes: the same numbers, in batches that fit into memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from ballast.evaluation import evaluate as module
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.evaluate import evaluate
from ballast.evaluation.protocol import Labelled, Protocol, SeedScores
from ballast.evaluation.ranking import ScoreOrder, one_vs_rest
from ballast.evaluation.statistic import LabelledScores


def of_many(classes: int, seeds: int = 2, each: int = 6, resamples: int = 100) -> tuple[dict[int, SeedScores], Protocol]:
    """Scores of several trainings, with `each` messages of every class in the validation set and in test."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), each)
    rows = np.arange(len(labels))
    scores = {}
    for seed in range(seeds):
        held_out, test = (rng.normal(size=(len(labels), classes)) + 4 * np.eye(classes)[labels] for _ in range(2))
        scores[seed] = SeedScores(
            validation=held_out, validation_rows=rows, test=test, train=held_out, train_classes=labels, declared_prior=None
        )
    protocol = Protocol(
        names=[f"c{label}" for label in range(classes)],
        out_of_fold=out_of_fold([rows] * seeds, labels, rows),
        test=Labelled(classes=labels, groups=rows),
        production_prior=np.full(classes, 1 / classes),
        resamples=resamples,
        confidence=0.95,
        seed=0,
    )
    return scores, protocol


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_log_odds_are_exact_for_every_posterior(classes: int) -> None:
    """Also where a class has nearly all of the posterior, or nearly nothing."""
    rng = np.random.default_rng(0)
    log_posterior = log_softmax(rng.normal(size=(300, classes)) * np.array([0.1, 3, 300])[np.arange(300) % 3, None], axis=1)
    for label in range(classes):
        others = logsumexp(np.delete(log_posterior, label, axis=1), axis=1)
        np.testing.assert_allclose(one_vs_rest(log_posterior, label), log_posterior[:, label] - others, rtol=1e-12, atol=1e-14)


def test_batches_of_families_do_not_change_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, protocol = of_many(classes=5)
    whole = evaluate(scores, protocol)
    monkeypatch.setattr(module, "COLUMNS_AT_ONCE", 1)
    parts = evaluate(scores, protocol)
    assert parts.summary["pooled"].keys() == whole.summary["pooled"].keys()
    for family, estimates in whole.summary["pooled"].items():
        for metric, estimate in estimates.items():
            assert parts.summary["pooled"][family][metric] == pytest.approx(estimate, abs=1e-6), (family, metric)
    for metric, drawn in whole.corrected.values.items():
        np.testing.assert_allclose(parts.corrected.values[metric], drawn, atol=1e-5)


def test_the_order_of_many_classes_is_computed_one_class_at_a_time() -> None:
    """The bins of all classes in all resamples at once would take gigabytes for 150 classes."""
    _, protocol = of_many(classes=30)
    logits = np.random.default_rng(0).normal(size=(len(protocol.test.classes), 30))
    order = ScoreOrder(LabelledScores(protocol.names, protocol.test.classes, logits, protocol.test.groups, np.ones(30)))
    counts = np.ones((500, protocol.test.n_groups), dtype=np.float32)
    tracemalloc.start()
    one = [array.nbytes for array in next(iter(order.in_samples(counts)))]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for _ in order.in_samples(counts):
        pass
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 6 * sum(one)


def test_draws_stay_for_the_families_of_a_comparison_only() -> None:
    scores, protocol = of_many(classes=3)
    adjusted = module.adjust(list(scores.values()), protocol)
    families = list(module.statistics_by_family(adjusted, {}, protocol))
    measured = module.measure(families, module.COMPARED, protocol)
    assert set(measured.draws) == set(module.COMPARED)
    assert set(measured.estimates) == {family for family, _ in families} > set(module.COMPARED)
