"""The learning curve of heads: nested shares, held-out decisions, and a gain that real trainings on twice the data confirm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ballast.evaluation.cross_fitting import group_parts, out_of_fold
from ballast.evaluation.learning_curve import SHARES, Corpus, LearningCurve, error_of, learning_curve
from ballast.evaluation.metrics import macro_f1
from ballast.evaluation.protocol import Labelled, OutOfFold, Protocol

NAMES = ["ham", "spam"]
PRIOR = np.array([0.8, 0.2])
DIRECTIONS = 30


def messages(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) that overlap between the classes, and classes (n,)."""
    rng = np.random.default_rng(seed)
    classes = np.repeat([0, 1], (PRIOR * count).astype(int))
    features = rng.normal(size=(len(classes), DIRECTIONS))
    features[:, 0] += 2.6 * classes
    return features / np.sqrt(DIRECTIONS), classes


def curve_of(corpus: Corpus, metric: str, folds: int = 5) -> LearningCurve:
    part = group_parts(corpus.classes, corpus.groups)
    rows = [np.flatnonzero(part == fold) for fold in range(folds)]
    held_out = out_of_fold(rows, corpus.classes, corpus.groups)
    train = [np.flatnonzero(part != fold) for fold in range(folds)]
    return learning_curve(corpus, train, held_out, np.concatenate(rows), metric, protocol_of(held_out))


def protocol_of(held_out: OutOfFold) -> Protocol:
    return Protocol(
        names=NAMES,
        out_of_fold=held_out,
        test=Labelled(classes=held_out.classes, groups=held_out.groups),
        production_prior=PRIOR,
        resamples=300,
        confidence=0.95,
        seed=0,
    )


def true_error(count: int, draws: int = 25) -> float:
    """The mean error (1 - macro F1) of heads that were trained on fresh messages, at their best threshold."""
    features, classes = messages(20_000, seed=1)
    errors = []
    for seed in range(draws):
        train, labels = messages(count, seed=100 + seed)
        corpus = Corpus(
            features=np.vstack([train, features]), classes=np.concatenate([labels, classes]), groups=np.empty(0), names=NAMES
        )
        logits = corpus.head_logits(np.arange(len(train)), len(train) + np.arange(len(features)))
        margin = logits[:, 1] - logits[:, 0]
        limits = np.quantile(margin, np.linspace(0.75, 0.88, 14))
        errors.append(1 - max(macro_f1((margin > limit).astype(int), classes) for limit in limits))
    return float(np.mean(errors))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    features, classes = messages(1000, seed=0)
    return Corpus(features=features, classes=classes, groups=np.arange(len(classes)), names=NAMES)


def test_the_gain_is_confirmed_by_trainings_on_twice_as_many_messages(corpus: Corpus) -> None:
    found = curve_of(corpus, "macro_f1")
    now, then = true_error(800), true_error(1600)
    gain = found.extrapolation.gain(now, np.full(300, now), confidence=0.95)
    assert gain["low"] <= now - then <= gain["high"], (gain, now - then)
    assert now > then and gain["high"] < 0.6 * now, "an interval that says nothing covers everything"


def test_shares_are_nested_and_the_curve_describes_them(corpus: Corpus) -> None:
    found = curve_of(corpus, "macro_f1")
    assert found.sizes == pytest.approx([800 * share for share in SHARES], rel=0.02)
    values = [point["value"] for point in found.points]
    assert values[-1] > values[0] and all(point["low"] <= point["value"] <= point["high"] for point in found.points)
    rows = [set(corpus.training_rows(np.arange(800), share, seed=0)) for share in SHARES]
    assert all(small <= large for small, large in pairwise(rows)) and len(rows[-1]) == 800


def test_groups_stay_together_in_shares(corpus: Corpus) -> None:
    grouped = Corpus(features=corpus.features, classes=corpus.classes, groups=np.arange(1000) // 4, names=NAMES)
    chosen = grouped.training_rows(np.arange(1000), 0.25, seed=0)
    assert (np.bincount(grouped.groups[chosen], minlength=250) % 4 == 0).all()


def test_losses_are_errors_as_they_are(corpus: Corpus) -> None:
    found = curve_of(corpus, "log_loss")
    assert found.points[0]["value"] > found.points[-1]["value"] > 0 and found.extrapolation.value > 0
    assert error_of("spam.pr_auc", np.array([0.9])) == pytest.approx([0.1])
    assert error_of("spam.false_positive_rate", np.array([0.9])) == pytest.approx([0.9])


def test_features_without_a_signal_promise_little() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], [400, 100])
    noise = Corpus(features=rng.normal(size=(500, 5)), classes=classes, groups=np.arange(500), names=NAMES)
    found = curve_of(noise, "macro_f1").extrapolation
    assert found.gain(0.5, np.full(300, 0.5), 0.95)["low"] < 0.01
