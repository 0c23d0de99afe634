"""The labelling queue: every message can be chosen, with the probability that the design states; estimates from its labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest

from ballast.monitoring.labelled_quality import (
    UNLABELLED,
    LabelledSample,
    labelled_quality,
    response_weights,
    with_held_out_mistakes,
)
from ballast.monitoring.labelling_queue import (
    NEIGHBOUR,
    UNUSUAL,
    Queue,
    Scores,
    Wanted,
    design,
    draw_queue,
)
from ballast.monitoring.probability_sampling import proportional_probabilities, systematic_rows
from benchmarks.measuring import result_path
from stages.store.files import read_json

WANTED = Wanted(budget=50, random=0.2, neighbours=0.2)


def population(n: int, prior: float, distance: float, seed: int = 0) -> tuple[np.ndarray, Scores]:
    """Classes (n,) and calibrated scores of n messages of two classes whose scores are normal, `distance` deviations apart."""
    rng = np.random.default_rng(seed)
    classes = (rng.random(n) < prior).astype(np.int64)
    odds = distance * (rng.normal(size=n) + distance * classes) - distance**2 / 2 + np.log(prior / (1 - prior))
    positive = 1 / (1 + np.exp(-odds))
    posteriors = np.column_stack([1 - positive, positive])
    return classes, Scores(posteriors=posteriors, predicted=posteriors.argmax(axis=1), groups=np.arange(n), common=0)


def labelled(queue: Queue, classes: np.ndarray, scores: Scores) -> LabelledSample:
    """The messages of a queue, all labelled."""
    return LabelledSample(
        classes=classes[queue.rows],
        predicted=scores.predicted[queue.rows],
        posteriors=scores.posteriors[queue.rows],
        inclusion=queue.inclusion,
        sizes=queue.sizes,
        strata=queue.strata,
    )


def rates(classes: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Precision and recall of class 1."""
    hits = float(((classes == 1) & (predicted == 1)).sum())
    return hits / (predicted == 1).sum(), hits / (classes == 1).sum()


@pytest.mark.parametrize(("sizes", "count"), [([1, 1, 1, 1, 1], 2), ([1, 2, 3, 1, 9], 2), ([5, 1, 1, 2], 3), ([1, 4], 2)])
def test_over_all_samples_every_item_has_its_probability(sizes: list[int], count: int) -> None:
    probabilities = proportional_probabilities(np.array(sizes), count)
    assert probabilities.sum() == pytest.approx(count) and (probabilities > 0).all() and (probabilities <= 1).all()
    orders = [np.array(order) for order in permutations(range(len(sizes)))]
    found = np.zeros(len(sizes))
    for order in orders:
        # The sample changes only where a point of the grid passes from one item to the next.
        edges = np.unique(np.concatenate([[0, 1], np.cumsum(probabilities[order[probabilities[order] < 1]]) % 1]))
        for low, high in pairwise(edges):
            rows = systematic_rows(probabilities, order, (low + high) / 2)
            assert len(rows) == len(set(rows)) == count
            found[rows] += (high - low) / len(orders)
    assert found == pytest.approx(probabilities)


WINDOWS = {
    "usual": population(800, 0.13, 3),
    "no rare class": population(500, 1e-9, 3),
    "only the rare class": population(300, 1 - 1e-9, 3),
    "rare": population(5000, 0.001, 4),
    "few": population(9, 0.3, 3),
    "one": population(1, 0.3, 3),
    "none": (np.empty(0, dtype=np.int64), Scores(posteriors=np.empty((0, 2)), predicted=np.empty(0, dtype=np.int64),
             groups=np.empty(0, dtype=np.int64), common=0)),
}  # fmt: skip
EVEN = np.random.default_rng(5).dirichlet(np.full(4, 0.2), 700)
WINDOWS["four classes"] = (
    EVEN.argmax(axis=1),
    Scores(posteriors=EVEN, predicted=EVEN.argmax(axis=1), groups=np.arange(700), common=2),
)
WINDOWS["templates"] = (
    WINDOWS["usual"][0],
    replace(WINDOWS["usual"][1], groups=np.random.default_rng(3).zipf(1.5, 800).clip(max=200)),
)
SAME = np.tile([0.9, 0.1], (400, 1))
WINDOWS["equal scores"] = (
    np.zeros(400, dtype=np.int64),
    Scores(posteriors=SAME, predicted=np.zeros(400, dtype=np.int64), groups=np.arange(400), common=0),
)


@pytest.mark.parametrize("budget", [1, 2, 5, 12, 13, 50, 2000])
@pytest.mark.parametrize("name", WINDOWS)
def test_every_message_can_be_chosen_and_the_probabilities_sum_to_the_budget(name: str, budget: int) -> None:
    _, scores = WINDOWS[name]
    n = len(scores.predicted)
    rng = np.random.default_rng(1)
    for unusual in (None, rng.permutation(n)[:20]):
        for similarity in (None, rng.random(n), np.zeros(n)):
            wanted = replace(WANTED, budget=budget)
            template, strata, probabilities = design(scores, wanted, unusual=unusual, similarity=similarity)
            least = min(budget, len(np.unique(scores.groups)))
            assert probabilities.sum() == pytest.approx(least)
            assert (probabilities > 0).all() and (probabilities <= 1).all() and (strata != "").all()
            queue = draw_queue(scores, wanted, 7, unusual=unusual, similarity=similarity)
            assert len(queue.rows) == least == len(np.unique(scores.groups[queue.rows]))
            sizes = np.bincount(template)[template[queue.rows]]
            assert queue.inclusion == pytest.approx(probabilities[template[queue.rows]] / sizes)
            again = draw_queue(scores, wanted, 7, unusual=unusual, similarity=similarity)
            assert (again.rows == queue.rows).all()


def test_unusual_messages_and_neighbours_have_strata_of_their_own() -> None:
    _, scores = WINDOWS["usual"]
    likely = np.argsort(scores.posteriors[:, 1])
    unusual, similar = likely[100:110], likely[200:230]
    similarity = np.zeros(800)
    similarity[similar] = 0.9
    queue = draw_queue(scores, WANTED, 0, unusual=unusual, similarity=similarity)
    assert set(queue.rows[queue.strata == UNUSUAL]) == set(unusual)
    assert (queue.inclusion[queue.strata == UNUSUAL] == 1).all()
    # A fifth of the labels that are left.
    assert np.isin(queue.rows[queue.strata == NEIGHBOUR], similar).all() and (queue.strata == NEIGHBOUR).sum() == 8
    assert queue.inclusion[queue.strata == NEIGHBOUR] == pytest.approx(8 / 24)


def test_totals_are_unbiased_even_with_wrong_scores_and_templates() -> None:
    classes, scores = population(600, 0.1, 2.5)
    rng = np.random.default_rng(2)
    # The scores are of other messages, so that they say nothing; a template has one class, but not one decision.
    shuffled = rng.permutation(600)
    groups = 1000 * classes + rng.zipf(1.6, 600).clip(max=150)
    scores = replace(scores, posteriors=scores.posteriors[shuffled], predicted=scores.predicted[shuffled], groups=groups)
    members = {"hits": (classes == 1) & (scores.predicted == 1), "of the class": classes == 1, "all": classes >= 0}
    draws = 600
    queues = [draw_queue(scores, replace(WANTED, budget=30), seed) for seed in range(draws)]
    for name, member in members.items():
        totals = np.array([(member[queue.rows] / queue.inclusion).sum() for queue in queues])
        error = totals.std() / np.sqrt(draws)
        assert abs(totals.mean() - member.sum()) < 4 * error + 1e-9, name
    naive = np.mean([(classes[queue.rows] == 1).mean() for queue in queues])
    assert abs(naive - (classes == 1).mean()) > 0.02


def at_random(count: int, classes: np.ndarray, scores: Scores, seed: int) -> LabelledSample:
    """A sample of `count` messages in which each has the same probability."""
    n = len(classes)
    rows = np.random.default_rng(seed).permutation(n)[:count]
    queue = Queue(rows=rows, strata=np.full(count, "all"), inclusion=np.full(count, count / n), sizes=np.ones(count))
    return labelled(queue, classes, scores)


def pooled(samples: list[LabelledSample]) -> LabelledSample:
    return LabelledSample(**{name: np.concatenate([getattr(sample, name) for sample in samples]) for name in vars(samples[0])})


def test_intervals_cover_precision_and_recall_over_windows_and_are_narrower_than_of_random_labels() -> None:
    covered, widths, errors = [], [], []
    for repetition in range(120):
        windows = [population(1000, 0.1, 3, seed=10 * repetition + at) for at in range(3)]
        truth = rates(np.concatenate([y for y, _ in windows]), np.concatenate([scores.predicted for _, scores in windows]))
        wanted = replace(WANTED, neighbours=0.0)
        queued = pooled([labelled(draw_queue(scores, wanted, repetition), y, scores) for y, scores in windows])
        drawn = pooled([at_random(50, y, scores, repetition) for y, scores in windows])
        quality, of_random = (labelled_quality(sample, confidence=0.95, draws=1000)[1] for sample in (queued, drawn))
        assert quality.precision is not None and quality.recall is not None and of_random.recall is not None
        estimates = (quality.precision, quality.recall)
        covered.append([each.low <= true <= each.high for each, true in zip(estimates, truth, strict=True)])
        widths.append([each.high - each.low for each in (quality.recall, of_random.recall)])
        errors.append([quality.precision.value - truth[0], rates(queued.classes, queued.predicted)[0] - truth[0]])
    # With 120 repetitions, a coverage of 0.95 has a standard error of 0.02.
    assert (np.mean(covered, axis=0) >= 0.89).all()
    of_queue, of_random_labels = np.mean(widths, axis=0)
    assert of_queue < 0.8 * of_random_labels
    weighted, unweighted = np.mean(errors, axis=0)
    assert abs(weighted) < 0.01 and abs(unweighted) > 0.04


def test_intervals_cover_the_precision_of_a_model_that_is_certain_of_its_mistakes() -> None:
    def sure(seed: int) -> tuple[np.ndarray, Scores]:
        classes, scores = population(600, 0.2, 8, seed=seed)
        mistaken = np.random.default_rng([seed, 1]).random(600) < 0.03
        return np.where(mistaken, 0, classes), scores

    held_out, reference = sure(99)
    covered = []
    for repetition in range(25):
        classes, scores = sure(repetition)
        truth, found = rates(classes, scores.predicted)[0], []
        raised = with_held_out_mistakes(
            scores.posteriors,
            scores.predicted,
            np.array([0.8, 0.2]),
            classes=held_out,
            decisions=reference.predicted,
            held_out=reference.posteriors,
        )
        for own in (scores, replace(scores, posteriors=raised)):
            queue = draw_queue(own, replace(WANTED, neighbours=0.0), repetition)
            precision = labelled_quality(labelled(queue, classes, own), confidence=0.95, draws=200)[1].precision
            assert precision is not None
            found.append(precision.low <= truth <= precision.high)
        covered.append(found)
    of_scores, of_raised = np.mean(covered, axis=0)
    assert of_scores < 0.6 and of_raised > 0.85


def test_the_measured_queue_is_unbiased_covers_and_narrows_the_interval_of_recall() -> None:
    for name, setting in read_json(result_path("labelling"))["settings"].items():
        for metric in ("queue.precision", "queue.recall"):
            measured, repeats = setting[metric], setting["repeats"]
            assert abs(measured["bias"]) < 0.01 + 2 * measured["bias_standard_error"], (name, metric)
            # Three standard errors around 92% and 98%.
            low, high = (end + sign * 3 * np.sqrt(end * (1 - end) / repeats) for end, sign in ((0.92, -1), (0.98, 1)))
            assert low <= measured["coverage"] <= high, (name, metric)
        # No choice of messages finds hidden mistakes better than a random one.
        assert setting["width_of_recall_against_random"] <= (1.0 if setting["certain"] else 0.7), name


def test_with_all_messages_labelled_the_estimates_are_exact() -> None:
    classes, scores = population(200, 0.2, 2)
    sample = labelled(draw_queue(scores, replace(WANTED, budget=500), 0), classes, scores)
    precision, recall = rates(classes, scores.predicted)
    quality = labelled_quality(sample, confidence=0.95)[1]
    assert quality.precision is not None and quality.recall is not None
    for estimate, truth in ((quality.precision, precision), (quality.recall, recall)):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((truth, truth, truth))


def test_the_first_labels_of_a_queue_stand_for_all_of_it() -> None:
    classes, scores = population(2000, 0.1, 3)
    sample = labelled(draw_queue(scores, WANTED, 0), classes, scores)
    half = np.where(np.arange(50) < 30, sample.classes, UNLABELLED)
    weights = response_weights(replace(sample, classes=half))
    assert weights.sum() == pytest.approx(2000) and (weights[30:] == 0).all()
    quality, whole = (labelled_quality(replace(sample, classes=c), confidence=0.95)[1] for c in (half, sample.classes))
    assert quality.recall is not None and whole.recall is not None
    assert quality.recall.high - quality.recall.low > whole.recall.high - whole.recall.low
    nothing = labelled_quality(replace(sample, classes=np.full(50, UNLABELLED)), confidence=0.95)[1]
    assert (nothing.precision, nothing.recall, nothing.labelled) == (None, None, 0)


def test_a_stratum_without_found_members_has_an_interval_that_allows_for_some() -> None:
    classes, scores = population(5000, 0.01, 3)
    sample = labelled(draw_queue(scores, WANTED, 0), np.where(scores.predicted == 1, classes, 0), scores)
    quality = labelled_quality(sample, confidence=0.95)[1]
    assert quality.recall is not None
    assert quality.recall.value == 1 and quality.recall.low < 0.9
