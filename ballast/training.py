"""The training loop: fine-tune an encoder as a technique declares, on any device, deterministic for a seed."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from ballast.encoder_model import EncoderModel, choose_device, in_bf16, untrained_model
from ballast.errors import UserError
from ballast.frozen_layers import freeze
from ballast.heads import head_of, set_head
from ballast.scoring import each_core, workers_for
from ballast.technique import Technique, TrainingData, TrainingSettings

# Points of the training curve and chances to notice a loss that is not finite.
CURVE_POINTS = 100
# Of a batch's rows; with fewer a core's products of matrices are too small to be fast.
ROWS_PER_PART = 8


def set_dropout(network: nn.Module, probability: float) -> None:
    """Set every dropout layer's probability."""
    for each in network.modules():
        if isinstance(each, nn.Dropout):
            each.p = probability


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """The accelerator for the device and precision asked for; `auto` precision is bf16 only where hardware has it."""
    device = choose_device(settings.device)
    bf16 = in_bf16(settings.precision, device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 else "no")


def fine_tune(technique: Technique, data: TrainingData, settings: TrainingSettings) -> EncoderModel:
    """Fine-tune an encoder and its head.

    The loss of a batch is the sum of the technique's per-example losses over (batch size x mean weight), the mean
    taken over the whole sample: the batch's own sum of weights would move the minimum.

    Raises
    ------
    UserError : the loss is not finite.
    """
    # cuBLAS is deterministic only with a fixed workspace; it must be set before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    accelerator = make_accelerator(settings)
    set_seed(settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be overwritten only helps to find faults in torch.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    rng = np.random.default_rng(settings.seed)

    model = untrained_model(settings.model, data.label_names, settings.max_length, accelerator.device, settings.precision)
    set_head(model.network, technique.head(head_of(model.network, len(data.label_names))))
    freeze(model.network, settings.frozen_layers)
    set_dropout(model.network, settings.dropout)

    if settings.dropout == 0:
        model.pass_once(settings.frozen_layers, data.corpus, data.texts, settings.keep)
    network, lengths, inputs_of = model.inputs(data.texts)
    class_weights = np.ones(len(data.label_names)) if technique.class_weights is None else technique.class_weights
    weights = data.weights * class_weights[data.labels]
    all_labels, all_weights = torch.tensor(data.labels), torch.tensor(weights, dtype=torch.float32)
    mean_weight = float(weights.mean())

    trained = [each for each in network.parameters() if each.requires_grad]
    fused = accelerator.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    steps = settings.epochs * math.ceil(len(lengths) / settings.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * steps), steps)
    network, optimizer, schedule = accelerator.prepare(network, optimizer, schedule)

    network.train()
    every = max(1, steps // CURVE_POINTS)
    since_report: list[torch.Tensor] = []
    epochs = (technique.batches(lengths, data.labels, settings.batch_size, rng) for _ in range(settings.epochs))
    batches = (batch for epoch in epochs for batch in epoch)

    def forward(rows: np.ndarray) -> torch.Tensor:
        with accelerator.autocast():
            return network(**inputs_of(rows)).logits

    def backward(logits: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return torch.autograd.grad(logits, trained, gradient, allow_unused=True)

    # Threads would draw dropout in an order that differs each time.
    parts = workers_for(settings.batch_size // ROWS_PER_PART, accelerator.device) if settings.dropout == 0 else 1
    with each_core(parts) as each_part:
        for step, rows in enumerate(tqdm(batches, total=steps, desc="training", unit="step", disable=None, leave=False)):
            labels, batch_weights = (each[rows].to(accelerator.device) for each in (all_labels, all_weights))
            of_parts = list(each_part(forward, np.array_split(rows, min(parts, len(rows)))))
            # The loss sees the whole batch: a technique's may couple its messages.
            logits = torch.cat([each.detach().float() for each in of_parts]).requires_grad_()
            loss = technique.loss(logits, labels, batch_weights, step / steps).sum() / (len(rows) * mean_weight)
            (gradient,) = torch.autograd.grad(loss, logits)
            shares = torch.split(gradient, [len(each) for each in of_parts])
            for parameter, *found in zip(trained, *each_part(backward, of_parts, shares), strict=True):
                parameter.grad = None if found[0] is None else sum(found[1:], start=found[0])
            accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            since_report.append(loss.detach())
            if (step + 1) % every == 0 or step + 1 == steps:
                mean_loss = float(torch.stack(since_report).mean())
                if not math.isfinite(mean_loss):
                    raise UserError(
                        f"the loss is {mean_loss} at step {step + 1} of {steps}; lower train.learning_rate or the weights"
                    )
                settings.on_step(step + 1, steps, mean_loss, schedule.get_last_lr()[0])
                since_report.clear()
    return model
