"""The training loop: fine-tune an encoder as a technique declares, on any device, deterministic for a seed."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from ballast.encoder_model import EncoderModel, choose_device, in_bf16, pad, tokenize, untrained_model
from ballast.errors import UserError
from ballast.frozen_layers import Inputs, can_pass_once, freeze, passed_once
from ballast.heads import head_of, set_head
from ballast.technique import Technique, TrainingData, TrainingSettings

# Points of the training curve and chances to notice a loss that is not finite.
CURVE_POINTS = 100


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

    ids = tokenize(model.tokenizer, data.texts, settings.max_length)
    lengths = np.array([len(each) for each in ids])
    class_weights = np.ones(len(data.label_names)) if technique.class_weights is None else technique.class_weights
    weights = data.weights * class_weights[data.labels]
    all_labels, all_weights = torch.tensor(data.labels), torch.tensor(weights, dtype=torch.float32)
    mean_weight = float(weights.mean())

    trained = [each for each in model.network.parameters() if each.requires_grad]
    fused = accelerator.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    steps = settings.epochs * math.ceil(len(ids) / settings.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * steps), steps)
    network, optimizer, schedule = accelerator.prepare(model.network, optimizer, schedule)

    network.train()
    every = max(1, steps // CURVE_POINTS)
    since_report: list[torch.Tensor] = []
    epochs = (technique.batches(lengths, data.labels, settings.batch_size, rng) for _ in range(settings.epochs))
    batches = (batch for epoch in epochs for batch in epoch)

    def padded(rows: np.ndarray) -> dict[str, torch.Tensor]:
        return pad(ids, rows, model.tokenizer.pad_token_id, accelerator.device)

    once = settings.dropout == 0 and can_pass_once(model.network, settings.frozen_layers, int(lengths.sum()))
    inputs: AbstractContextManager[Inputs] = (
        passed_once(model.network, settings.frozen_layers, ids, padded, accelerator.autocast) if once else nullcontext(padded)
    )
    with inputs as inputs_of:
        for step, rows in enumerate(tqdm(batches, total=steps, desc="training", unit="step", disable=None, leave=False)):
            labels, batch_weights = (each[rows].to(accelerator.device) for each in (all_labels, all_weights))
            with accelerator.autocast():
                logits = network(**inputs_of(rows)).logits
            loss = technique.loss(logits.float(), labels, batch_weights, step / steps).sum() / (len(rows) * mean_weight)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            since_report.append(loss.detach())
            if (step + 1) % every == 0 or step + 1 == steps:
                mean_loss = float(torch.stack(since_report).mean())
                if not math.isfinite(mean_loss):
                    raise UserError(
                        f"the loss is {mean_loss} at step {step + 1} of {steps}; lower train.learning_rate or the weights"
                    )
                settings.on_step(step + 1, steps, mean_loss, schedule.get_last_lr()[0])
                since_report.clear()
    model.network = accelerator.unwrap_model(network)
    return model
