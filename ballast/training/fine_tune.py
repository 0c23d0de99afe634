"""Fine-tune an encoder as a technique declares, on any device. On a CPU, a seed determines the result to the bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import PreTrainedModel

from ballast.compute.memory import translate_oom
from ballast.compute.parallel import n_workers
from ballast.compute.precision import use_bf16
from ballast.models.encoder import EncoderModel, choose_device, new_encoder_model
from ballast.models.frozen_layers import Inputs, freeze
from ballast.models.heads import head_of, set_head
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.training.gradients import BatchGradients
from ballast.training.launching import LOCAL_RANK, is_worker
from ballast.training.loop import TrainingLoop
from ballast.training.ranks import Ranks

# Rows of a batch. With fewer per core, matrix products are too small to be fast.
ROWS_PER_CORE = 8


def set_dropout(network: nn.Module, probability: float) -> None:
    """Set the probability of every dropout layer."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def connect_device(settings: TrainingSettings) -> torch.device:
    """Let Accelerate connect the processes of this training. Returns this process's device; raises ArgumentError."""
    if is_worker() and settings.device in ("auto", "cuda") and torch.cuda.is_available():
        # Before anything is put on a GPU: otherwise all processes would use the first one.
        torch.cuda.set_device(int(os.environ[LOCAL_RANK]))
    # Precision is chosen here and not by Accelerate, which allows one precision in the life of a process.
    return Accelerator(cpu=choose_device(settings.device).type == "cpu", mixed_precision="no").device


def make_deterministic(seed: int) -> None:
    """Seed all generators, and let torch use deterministic kernels."""
    set_seed(seed)
    # Warnings only, because some fused attention kernels on GPUs have no deterministic backward pass.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be overwritten only helps to find bugs in torch.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def initial_model(
    technique: Technique, data: TrainingData, settings: TrainingSettings, device: torch.device, ranks: Ranks
) -> EncoderModel:
    """The model before training: the technique's head, frozen layers, dropout, and the same weights on all processes."""
    model = new_encoder_model(
        settings.model, data.label_names, settings.max_length, device, settings.precision, settings.long_texts
    )
    set_head(model.network, technique.head(head_of(model.network, len(data.label_names))))
    freeze(model.network, settings.frozen_layers)
    set_dropout(model.network, settings.dropout)
    weights = model.network.state_dict()
    # Before the broadcast: processes with other shapes would wait for each other.
    ranks.check_same(repr([(name, weight.shape) for name, weight in weights.items()]))
    ranks.broadcast(list(weights.values()))
    return model


def in_parts(data: TrainingData, model: EncoderModel) -> TrainingData:
    """The data with the parts that the model reads instead of the texts; the parts of a text share its weight."""
    parts, rows = model.parts(data.texts)
    weights = data.weights[rows] / np.bincount(rows, minlength=len(data.texts))[rows]
    return replace(data, texts=parts, labels=data.labels[rows], weights=weights, corpus=model.parts(data.corpus)[0])


def forward_pass(
    network: PreTrainedModel, inputs_of: Inputs, device: torch.device, *, bf16: bool
) -> Callable[[np.ndarray], Tensor]:
    """A function from rows (m,) to their logits (m, K) float32."""

    def logits_of(rows: np.ndarray) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = network(**inputs_of(rows)).logits
        return logits.float()

    return logits_of


def batch_loss(
    technique: Technique, data: TrainingData, steps: int, device: torch.device
) -> Callable[[Tensor, np.ndarray, int], Tensor]:
    """A function from logits (b, K), rows (b,) and step to the loss of a batch.

    The loss is the sum of the technique's per-example losses over (batch size x mean weight). The mean is taken over the
    whole sample: dividing by the batch's own sum of weights would move the minimum.
    """
    class_weights = np.ones(len(data.label_names)) if technique.class_weights is None else technique.class_weights
    weights = data.weights * class_weights[data.labels]
    all_labels, all_weights = torch.tensor(data.labels), torch.tensor(weights, dtype=torch.float32)
    mean_weight = float(weights.mean())

    def loss_of(logits: Tensor, rows: np.ndarray, step: int) -> Tensor:
        labels, batch_weights = all_labels[rows].to(device), all_weights[rows].to(device)
        return technique.loss(logits, labels, batch_weights, step / steps).sum() / (len(rows) * mean_weight)

    return loss_of


@translate_oom()
def fine_tune(technique: Technique, data: TrainingData, settings: TrainingSettings) -> EncoderModel:
    """Fine-tune an encoder and its head, in this process or in several.

    Several processes give the same result as one, up to rounding and dropout: every process draws the same batches and
    computes its shard of each.

    Raises
    ------
    ArgumentError : the loss is not finite, or an argument does not fit the encoder or the machine.
    TrainingError : memory is too small for one message at a time.
    """
    # cuBLAS is deterministic only with a fixed workspace, which must be set before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = connect_device(settings)
    ranks = Ranks.current()
    make_deterministic(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model = initial_model(technique, data, settings, device, ranks)
    data = in_parts(data, model)
    if settings.dropout == 0:
        model.cache_hidden_states(settings.frozen_layers, data.corpus, data.texts, settings.cache)
    network, lengths, inputs_of = model.inputs(data.texts)
    steps = settings.epochs * math.ceil(len(lengths) / settings.batch_size)
    parameters = {name: parameter for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    # Threads would draw dropout in a different order each time.
    parts = settings.batch_size // (ranks.world_size * ROWS_PER_CORE) if settings.dropout == 0 else 1
    gradients = BatchGradients(
        logits=forward_pass(network, inputs_of, device, bf16=use_bf16(settings.precision, device)),
        loss=batch_loss(technique, data, steps, device),
        parameters=list(parameters.values()),
        ranks=ranks,
        seed=settings.seed,
        cores=n_workers(parts, device),
    )
    loop = TrainingLoop.start(settings, steps, parameters, gradients)
    network.train()
    if settings.checkpoint is not None:
        loop.resume_from(settings.checkpoint.for_weights(model.network.state_dict()))
    epochs = (technique.batches(lengths, data.labels, settings.batch_size, rng) for _ in range(settings.epochs))
    loop.run(batch for epoch in epochs for batch in epoch)
    return model
