"""The one abstraction: a technique declares what it changes; everything else is as in the plain baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ballast.compute.batching import shuffled_batches
from ballast.sampling import all_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ballast.models.base import Model
    from ballast.models.frozen_layers import Cache
    from ballast.training.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The sample that a technique trains on: texts (m,), labels (m,) class indices, weights (m,), K label names.

    corpus : all texts of the data set, in any split. The outputs of a frozen network for them can be cached between trainings.
    """

    texts: Sequence[str]
    labels: np.ndarray
    weights: np.ndarray
    label_names: list[str]
    corpus: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train.

    on_step : called with (step, steps, loss, learning rate) at every point of the loss curve.
    cache : returns earlier outputs of a frozen network, or computes them.
    checkpoint : from which an interrupted training resumes, with the same result.
    """

    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int
    seed: int
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dropout: float = 0.0
    frozen_layers: int = 0
    long_texts: str = "truncate"
    precision: str = "auto"
    device: str = "auto"
    on_step: Callable[[int, int, float, float], None] = field(default=lambda step, steps, loss, rate: None)
    cache: Cache = field(default=lambda fingerprint, compute: compute())
    checkpoint: Checkpoint | None = None


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
    """Weighted cross entropy of each example: logits (b, K), labels (b,), weights (b,) -> (b,)."""
    from torch.nn import functional

    return weights * functional.cross_entropy(logits, labels, reduction="none")


def plain_head(linear: nn.Linear) -> nn.Linear:
    """The classification layer as transformers initialises it."""
    return linear


def plain_texts(texts: Sequence[str], repeated: np.ndarray, rng: np.random.Generator) -> Sequence[str]:
    """The texts unchanged."""
    return texts


def plain_batches(lengths: np.ndarray, labels: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every row once per epoch, in random batches of similar length."""
    return shuffled_batches(lengths, batch_size, rng)


def own_prior(share: np.ndarray) -> np.ndarray | None:
    """The posteriors are right for the weighted class shares (K,) that the model was trained on."""
    return share


def no_prior(share: np.ndarray) -> np.ndarray | None:
    """No prior can be derived, so the fitted one is used."""
    return None


@dataclass(frozen=True, kw_only=True)
class Technique:
    """What a technique changes compared with the plain baseline.

    sample : (labels (n,), rng) -> rows (m,), weights (m,): which rows, how often, with which weight.
    texts : (texts (m,), repeated (m,) booleans, rng) -> texts (m,): augmentation. `repeated` marks rows that occurred before.
    batches : (lengths (m,) in tokens, labels (m,), batch size, rng) -> the batches of an epoch, arrays of rows; m rows in all.
    class_weights : (K,) factor on the loss of each class, or None for 1. The loss is divided by the mean of sample weight times
        class weight over the sample. Dividing by a batch's own sum would move the minimum.
    loss : (logits (b, K), labels (b,), weights (b,), progress in 0..1) -> per-example loss (b,).
    head : (final linear layer) -> the layer to train: itself, initialised, or another of the same shape.
    declared_prior : (weighted share of each class (K,)) -> the prior (K,) that the posteriors are right for, or None.
    fit : trains another kind of model; None fine-tunes the encoder of the settings.
    """

    sample: Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]] = all_rows
    texts: Callable[[Sequence[str], np.ndarray, np.random.Generator], Sequence[str]] = plain_texts
    batches: Callable[[np.ndarray, np.ndarray, int, np.random.Generator], list[np.ndarray]] = plain_batches
    class_weights: np.ndarray | None = None
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor] = cross_entropy
    head: Callable[[nn.Linear], nn.Linear] = plain_head
    declared_prior: Callable[[np.ndarray], np.ndarray | None] = own_prior
    fit: Callable[[TrainingData, TrainingSettings], Model] | None = None


def weighted_share(labels: np.ndarray, weights: np.ndarray, class_weights: np.ndarray | None, classes: int) -> np.ndarray:
    """Share (K,) of sample weight times class weight that each class has in a sample.

    labels (m,) class indices, weights (m,) sample weights, class_weights (K,) or None.
    """
    total = np.bincount(labels, weights=weights, minlength=classes)
    total = total if class_weights is None else total * class_weights
    return total / total.sum()
