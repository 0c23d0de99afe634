"""The one abstraction: a technique declares what it changes and leaves the rest as the plain baseline has it."""

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
    from ballast.models.frozen_layers import Keep
    from ballast.training.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The sample that a technique trains on: texts (m,), labels (m,) class indices, weights (m,), K label names.

    corpus : all texts of the data set, in any split: what a frozen network gives for them can be kept for the next training.
    """

    texts: Sequence[str]
    labels: np.ndarray
    weights: np.ndarray
    label_names: list[str]
    corpus: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train; the reasons for the values stand in `params.yaml`.

    on_step : hears (step, steps, loss, learning rate).
    keep : gives again what a frozen network gave in an earlier training.
    checkpoint : from where a training that was interrupted goes on, with the same result.
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
    precision: str = "auto"
    device: str = "auto"
    on_step: Callable[[int, int, float, float], None] = field(default=lambda step, steps, loss, rate: None)
    keep: Keep = field(default=lambda fingerprint, compute: compute())
    checkpoint: Checkpoint | None = None


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, progress: float) -> Tensor:
    """Weighted cross entropy of each example: logits (b, K), labels (b,), weights (b,) -> (b,)."""
    from torch.nn import functional

    return weights * functional.cross_entropy(logits, labels, reduction="none")


def plain_head(linear: nn.Linear) -> nn.Linear:
    """Leave the classification layer as the encoder's library initialises it."""
    return linear


def plain_texts(texts: Sequence[str], repeated: np.ndarray, rng: np.random.Generator) -> Sequence[str]:
    """Leave the texts as they are."""
    return texts


def plain_batches(lengths: np.ndarray, labels: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every row once an epoch, in random batches of similar length."""
    return shuffled_batches(lengths, batch_size, rng)


def own_prior(share: np.ndarray) -> np.ndarray | None:
    """The posteriors are right for the weighted class shares (K,) that the model was trained on."""
    return share


def no_prior(share: np.ndarray) -> np.ndarray | None:
    """No prior can be derived; only the fitted one tells."""
    return None


@dataclass(frozen=True, kw_only=True)
class Technique:
    """What one technique changes against the plain baseline.

    sample : (labels (n,), rng) -> rows (m,), weights (m,): which rows, how often, how heavy.
    texts : (texts (m,), repeated (m,) booleans, rng) -> texts (m,): augmentation; `repeated` marks a row that stands before.
    batches : (lengths (m,) in tokens, labels (m,), batch size, rng) -> the batches of an epoch, arrays of rows; m rows in all.
    class_weights : (K,) factor on each class's loss, or None for 1. The mean of sample weight times class weight
        over the sample divides the loss, never a batch's own sum: that would move the minimum.
    loss : (logits (b, K), labels (b,), weights (b,), progress in 0..1) -> per-example loss (b,).
    head : (final linear layer) -> the layer to train: itself, initialised, or another of the same shape.
    declared_prior : (weighted share of each class (K,)) -> the prior (K,) that the posteriors are right for, or None.
    fit : trains a model of its own; None fine-tunes the encoder that the settings name.
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
