"""Hyper-parameter search: the values of a technique's parameters that do best on validation.

A trial trains a linear head on frozen embeddings with the technique's own sample, class weights and loss, so that it costs a
second and not a fine-tuning. It never sees the test split.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NIPS 2011), the tree-structured Parzen estimator; Akiba et
al., Optuna (1907.10902).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ballast.evaluation.metrics import Metrics, higher_is_better
from ballast.evaluation.statistic import LabelledScores
from ballast.exceptions import UserError
from ballast.technique import Technique, plain_batches, plain_texts
from ballast.techniques import build

if TYPE_CHECKING:
    from optuna import Trial

# Full-batch steps of Adam: the metric of a head no longer changes after them.
STEPS = 200
LEARNING_RATE = 0.1
# Inverse strength of the L2 penalty on the head, as for the other heads on embeddings.
INVERSE_PENALTY = 10.0

# The range of a number, {low, high, log, per_class}, or the values to choose from, {choices}.
Space = Mapping[str, Any]
Parameters = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of training (n, d) and of validation (m, d), their class indices (n,) and (m,), K label names."""

    train: np.ndarray
    train_classes: np.ndarray
    validation: np.ndarray
    validation_classes: np.ndarray
    labels: Sequence[str]

    @property
    def counts(self) -> np.ndarray:
        """Training messages of each class (K,)."""
        return np.bincount(self.train_classes, minlength=len(self.labels))


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Parameters and the metric that a head trained with them has on validation."""

    parameters: Parameters
    value: float


def parameter_value(space: Space, counts: np.ndarray, labels: Sequence[str], pick: Callable[[str], Any]) -> Any:
    """A parameter's value, given how to pick one for a suffix of the parameter's name.

    With `per_class` it is a number for each class: those of the smaller classes are picked, the largest class has 1.
    """
    if not space.get("per_class"):
        return pick("")
    return {label: 1.0 if index == counts.argmax() else pick(f".{label}") for index, label in enumerate(labels)}


def ends(space: Space) -> Sequence[Any]:
    """The values that a technique must accept for the whole space to be good."""
    return space.get("choices") or (space["low"], space["high"])


def constant(value: Any, suffix: str) -> Any:
    """The value, for every class."""
    return value


def suggest(trial: Trial, name: str, space: Space, suffix: str) -> Any:
    """What Optuna suggests; a number has four significant digits, so that a card can be read."""
    if "choices" in space:
        return space["choices"][trial.suggest_categorical(name, range(len(space["choices"])))]
    number = trial.suggest_float(name + suffix, space["low"], space["high"], log=bool(space.get("log")))
    return float(f"{number:.4g}")


def check_spaces(
    technique: str, given: Parameters, spaces: Mapping[str, Space], counts: np.ndarray, labels: Sequence[str]
) -> None:
    """Raise UserError unless the technique takes both ends and every choice of each space, and can be searched.

    technique : file name; given : its other parameters; counts : (K,) training messages of each class.
    """
    for at in range(max(len(ends(space)) for space in spaces.values())):
        # Of a space with fewer values than another the last one stands for the rest.
        values = {name: ends(space)[min(at, len(ends(space)) - 1)] for name, space in spaces.items()}
        corner = {
            name: parameter_value(space, counts, labels, partial(constant, values[name])) for name, space in spaces.items()
        }
        made = build(technique, counts, labels, {**given, **corner})
        if made.fit is not None or made.texts is not plain_texts or made.batches is not plain_batches:
            raise UserError(
                f"{technique} cannot be searched: it is more than a sample, class weights, a loss and a head on embeddings"
            )


def validation_logits(technique: Technique, data: Embedded, seed: int) -> np.ndarray:
    """Logits (m, K) of validation from a linear head that is trained as the technique declares.

    As in a fine-tuning, the loss is the sum of per-example losses over (messages x mean weight).
    """
    import torch

    rows, weights = technique.sample(data.train_classes, np.random.default_rng(seed))
    labels = data.train_classes[rows]
    weights = weights if technique.class_weights is None else weights * technique.class_weights[labels]
    features, targets = torch.from_numpy(data.train[rows]), torch.from_numpy(labels)
    heavy = torch.tensor(weights, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = technique.head(torch.nn.Linear(features.shape[1], len(data.labels)))
    trained = [each for each in head.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for step in range(STEPS):
        losses = technique.loss(head(features), targets, heavy, step / STEPS)
        penalty = head.weight.square().sum() / (2 * INVERSE_PENALTY)
        loss = (losses.sum() / heavy.mean() + penalty) / len(rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        logits: np.ndarray = head(torch.from_numpy(data.validation)).numpy()
    return logits


def validation_metric(technique: Technique, data: Embedded, metric: str, seed: int) -> float:
    """A metric of the decisions and posteriors on validation, as the technique gives them."""
    logits = validation_logits(technique, data, seed)
    if not np.isfinite(logits).all():
        raise UserError("the logits of a head are not finite; narrow the space")
    one_group = np.zeros(len(logits), dtype=np.int64)
    scored = LabelledScores(data.labels, data.validation_classes, logits, one_group, np.ones(len(data.labels)))
    return float(Metrics(scored)(np.ones((1, 1)))[metric][0])


def search(
    technique: str,
    given: Parameters,
    spaces: Mapping[str, Space],
    data: Embedded,
    *,
    metric: str,
    trials: int,
    seed: int,
    on_trial: Callable[[int, float], None] = lambda trial, best: None,
) -> list[TrialResult]:
    """Try parameters of a technique, each trial where the earlier ones did well.

    Parameters
    ----------
    technique : file name of the technique.
    given : its parameters that are not searched.
    spaces : parameter -> its range or choices.
    metric : of the leaderboard, measured on validation without a correction of the prior.
    trials : how many; on_trial hears (trial from 1, best value so far).
    seed : of the search, of the samples and of the heads' initial weights.

    Returns
    -------
    The trials in their order; `best` tells which one wins.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed), direction="maximize" if higher_is_better(metric) else "minimize"
    )
    tried: list[TrialResult] = []
    for number in range(1, trials + 1):
        trial = study.ask()
        parameters = {
            name: parameter_value(space, data.counts, data.labels, partial(suggest, trial, name, space))
            for name, space in spaces.items()
        }
        made = build(technique, data.counts, data.labels, {**given, **parameters})
        tried.append(TrialResult(parameters=parameters, value=validation_metric(made, data, metric, seed)))
        study.tell(trial, tried[-1].value)
        on_trial(number, best(tried, metric).value)
    return tried


def reference_value(data: Embedded, metric: str, seed: int) -> float:
    """The metric of a plain head, which the best trial must beat."""
    return validation_metric(Technique(), data, metric, seed)


def best(tried: Sequence[TrialResult], metric: str) -> TrialResult:
    """The trial with the best value, of equals the first."""
    sign = 1 if higher_is_better(metric) else -1
    return max(tried, key=lambda each: sign * each.value)
