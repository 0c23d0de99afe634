"""The learning curve of heads on frozen embeddings: how the error falls with the number of training messages.

A head takes milliseconds to fit, so it is fitted on nested shares of the training messages of every fold and evaluated out of
fold, as the techniques are. Its error is larger than that of a fine-tuned encoder. What carries over is the share of the error
that more messages remove, because the rate of a learning curve belongs to the task rather than to the model (Hestness et al.
2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from ballast.data.splitting import nested_subsample
from ballast.evaluation.adjustment import cross_fit
from ballast.evaluation.bootstrap import Draws, seed_noise
from ballast.evaluation.intervals import pooled_draws, with_intervals
from ballast.evaluation.metrics import Decisions, Metrics, higher_is_better
from ballast.evaluation.out_of_fold import Family, training_deviation
from ballast.evaluation.power_law import Extrapolation, extrapolate
from ballast.evaluation.protocol import OutOfFold, Protocol

SHARES = (0.125, 0.25, 0.5, 1.0)
# Inverse strength of the L2 penalty, as for the other heads on embeddings.
INVERSE_PENALTY = 10.0
ITERATIONS = 2000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All messages as features (n, d), with classes (n,), groups (n,) and the K label names."""

    features: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    names: Sequence[str]

    def training_rows(self, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
        """A share of the rows (m,), by whole groups and stratified; smaller shares are among larger ones."""
        inside = nested_subsample(self.classes[rows], self.groups[rows], share, seed, list(self.names))
        return rows[inside]

    def head_logits(self, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Log posteriors (m, K) of rows (m,) by a logistic regression on the rows `train`, which hold every class."""
        regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=ITERATIONS)
        logits: np.ndarray = regression.fit(self.features[train], self.classes[train]).predict_log_proba(self.features[rows])
        return logits


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """A metric by number of training messages, with its draws, and its extrapolation.

    sizes : (p,) training messages, the mean over folds.
    points : value, low, high of the metric at each size.
    extrapolation : to twice as many training messages.
    """

    metric: str
    sizes: np.ndarray
    points: Sequence[Mapping[str, float]]
    extrapolation: Extrapolation


def error_of(metric: str, values: np.ndarray) -> np.ndarray:
    """What a metric lacks: 1 - value, or the value of a loss.

    Examples
    --------
    >>> error_of("macro_f1", np.array([0.75])), error_of("log_loss", np.array([0.75]))
    (array([0.25]), array([0.75]))
    """
    return 1 - values if higher_is_better(metric) else values


def learning_curve(
    corpus: Corpus, train: Sequence[np.ndarray], messages: OutOfFold, rows: np.ndarray, metric: str, protocol: Protocol
) -> LearningCurve:
    """Fit heads on shares of the training rows of each fold, and extrapolate the error of their out-of-fold decisions.

    Parameters
    ----------
    train : training rows of each fold.
    messages : the held-out messages of all folds, in their order.
    rows : (n,) of the held-out messages in the corpus.
    metric : of decisions, at the cross-fitted operating point; or of probabilities, corrected to the production prior.
    """
    protocol = replace(protocol, out_of_fold=messages)
    held_out = [rows[messages.training == fold] for fold in range(len(train))]
    rng = np.random.default_rng(protocol.seed)
    values, draws, sizes = [], [], []
    for share in SHARES:
        chosen = [corpus.training_rows(of_fold, share, protocol.seed) for of_fold in train]
        logits = np.concatenate([corpus.head_logits(*pair) for pair in zip(chosen, held_out, strict=True)])
        measured = out_of_fold_draws(logits, metric, protocol)
        deviation, folds = training_deviation(measured, metric), len(train)
        values.append(measured.point(metric))
        # The draws of the sizes are paired over messages, but their trainings vary independently.
        draws.append(measured.values[metric] + seed_noise(deviation, folds, protocol.resamples, rng, folds - 1))
        sizes.append(np.mean([len(of_fold) for of_fold in chosen]))
    return LearningCurve(
        metric=metric,
        sizes=np.array(sizes),
        points=[
            with_intervals({metric: value}, drawn[None], {}, protocol)[metric]
            for value, drawn in zip(values, draws, strict=True)
        ],
        extrapolation=extrapolate(
            np.array(sizes), error_of(metric, np.array(values)), error_of(metric, np.stack(draws, axis=1))
        ),
    )


def out_of_fold_draws(logits: np.ndarray, metric: str, protocol: Protocol) -> Draws:
    """Draws of a metric on out-of-fold logits (n, K): of decisions at the cross-fitted operating point, or corrected."""
    return draws_of_crossed(*cross_fit(logits, protocol.out_of_fold, None, protocol), metric, protocol)


def draws_of_crossed(crossed: np.ndarray, preferences: np.ndarray, metric: str, protocol: Protocol) -> Draws:
    """Draws of a metric on cross-fitted logits (n, K) and preferences (n, K) of the out-of-fold messages."""
    messages, decides = protocol.out_of_fold, is_of_decisions(metric)
    family = Family(
        kind=Decisions if decides else Metrics,
        logits=preferences if decides else crossed,
        class_weights=protocol.production_weights(messages),
    )
    statistic = family.statistic(messages, protocol)
    drawn = pooled_draws({"": [statistic]}, messages, protocol)[""].values
    return family.draws(statistic, drawn, protocol)


# Metrics that need probabilities or an order of the messages.
OF_SCORES = frozenset({"log_loss", "brier", "ece", "pr_auc", "roc_auc", "mean_probability"})


def is_of_decisions(metric: str) -> bool:
    """Whether a metric is one of decisions, so that the operating point changes it.

    Examples
    --------
    >>> is_of_decisions("spam.f1"), is_of_decisions("spam.pr_auc")
    (True, False)
    """
    return metric.rpartition(".")[2] not in OF_SCORES
