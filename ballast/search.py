"""Hyper-parameter search: find the parameters of a technique that perform best on validation.

A trial trains a linear head on frozen embeddings with the technique's sample, class weights and loss. It takes a second instead
of a fine-tuning. The test split is never used.

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

# Full-batch steps of Adam, after which the metric of a head no longer changes.
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
    """The parameters of a trial, and its metric on validation."""

    parameters: Parameters
    value: float


def parameter_value(space: Space, counts: np.ndarray, labels: Sequence[str], pick: Callable[[str], Any]) -> Any:
    """The value of a parameter. `pick` gives a number for a suffix of the parameter's name.

    With `per_class`, the value is a number for each class: 1 for the largest class, and picked for the others.
    """
    if not space.get("per_class"):
        return pick("")
    return {label: 1.0 if index == counts.argmax() else pick(f".{label}") for index, label in enumerate(labels)}


def ends(space: Space) -> Sequence[Any]:
    """The values that a technique must accept for the whole space to be valid."""
    return space.get("choices") or (space["low"], space["high"])


def constant(value: Any, suffix: str) -> Any:
    """The same value for every class."""
    return value


def suggest(trial: Trial, name: str, space: Space, suffix: str) -> Any:
    """The value that Optuna suggests; numbers are rounded to four significant digits."""
    if "choices" in space:
        return space["choices"][trial.suggest_categorical(name, range(len(space["choices"])))]
    number = trial.suggest_float(name + suffix, space["low"], space["high"], log=bool(space.get("log")))
    return float(f"{number:.4g}")


def check_spaces(
    technique: str, given: Parameters, spaces: Mapping[str, Space], counts: np.ndarray, labels: Sequence[str]
) -> None:
    """Raise UserError unless the technique can be searched and accepts both ends and all choices of each space.

    technique : its name; given : its other parameters; counts : (K,) training messages of each class.
    """
    for position in range(max(len(ends(space)) for space in spaces.values())):
        # The last value of a space is repeated if another space has more values.
        values = {name: ends(space)[min(position, len(ends(space)) - 1)] for name, space in spaces.items()}
        corner = {
            name: parameter_value(space, counts, labels, partial(constant, values[name])) for name, space in spaces.items()
        }
        built = build(technique, counts, labels, {**given, **corner})
        if built.fit is not None or built.texts is not plain_texts or built.batches is not plain_batches:
            raise UserError(
                f"{technique} cannot be searched: it changes more than the sample, the class weights, the loss and the head"
            )


def validation_logits(technique: Technique, data: Embedded, seed: int) -> np.ndarray:
    """Validation logits (m, K) of a linear head that is trained as the technique declares.

    As in fine-tuning, the loss is the sum of per-example losses over (messages x mean weight).
    """
    import torch

    rows, weights = technique.sample(data.train_classes, np.random.default_rng(seed))
    labels = data.train_classes[rows]
    weights = weights if technique.class_weights is None else weights * technique.class_weights[labels]
    features, targets = torch.from_numpy(data.train[rows]), torch.from_numpy(labels)
    sample_weights = torch.tensor(weights, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = technique.head(torch.nn.Linear(features.shape[1], len(data.labels)))
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for step in range(STEPS):
        losses = technique.loss(head(features), targets, sample_weights, step / STEPS)
        penalty = head.weight.square().sum() / (2 * INVERSE_PENALTY)
        loss = (losses.sum() / sample_weights.mean() + penalty) / len(rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        logits: np.ndarray = head(torch.from_numpy(data.validation)).numpy()
    return logits


def validation_metric(technique: Technique, data: Embedded, metric: str, seed: int) -> float:
    """A metric on validation, from the technique's uncorrected posteriors."""
    logits = validation_logits(technique, data, seed)
    if not np.isfinite(logits).all():
        raise UserError("the logits of a trial are not finite; narrow the search space")
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
    """Search the parameters of a technique with the tree-structured Parzen estimator.

    Parameters
    ----------
    technique : name of the technique.
    given : its parameters that are not searched.
    spaces : parameter -> its range or choices.
    metric : measured on validation without a correction of the prior.
    trials : number of trials. on_trial is called with (number of the trial from 1, best value so far).
    seed : of the search, of the samples and of the heads' initial weights.

    Returns
    -------
    The trials in order; `best` finds the best one.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed), direction="maximize" if higher_is_better(metric) else "minimize"
    )
    results: list[TrialResult] = []
    for number in range(1, trials + 1):
        trial = study.ask()
        parameters = {
            name: parameter_value(space, data.counts, data.labels, partial(suggest, trial, name, space))
            for name, space in spaces.items()
        }
        built = build(technique, data.counts, data.labels, {**given, **parameters})
        results.append(TrialResult(parameters=parameters, value=validation_metric(built, data, metric, seed)))
        study.tell(trial, results[-1].value)
        on_trial(number, best(results, metric).value)
    return results


def reference_value(data: Embedded, metric: str, seed: int) -> float:
    """The metric of a plain head: the reference for the best trial."""
    return validation_metric(Technique(), data, metric, seed)


def best(results: Sequence[TrialResult], metric: str) -> TrialResult:
    """The trial with the best value; the first one wins ties."""
    sign = 1 if higher_is_better(metric) else -1
    return max(results, key=lambda result: sign * result.value)
