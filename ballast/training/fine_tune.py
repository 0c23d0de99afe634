"""The training loop: fine-tune an encoder as a technique declares, on any device, on a CPU to the same bytes for a seed."""

from __future__ import annotations

import math
import os
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from ballast.compute.memory import out_of_memory_told
from ballast.compute.parallel import each_core, workers_for
from ballast.compute.precision import in_bf16
from ballast.exceptions import UserError
from ballast.models.encoder import EncoderModel, choose_device, untrained_model
from ballast.models.frozen_layers import freeze
from ballast.models.heads import head_of, set_head
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.training.checkpoint import resumed, tell, tensors_of
from ballast.training.gradients import BatchGradients
from ballast.training.launching import LOCAL_RANK, is_rank
from ballast.training.ranks import Ranks

# Points of the training curve and chances to notice a loss that is not finite.
CURVE_POINTS = 100
# Of a batch's rows; with fewer a core's products of matrices are too small to be fast.
ROWS_PER_CORE = 8


def set_dropout(network: nn.Module, probability: float) -> None:
    """Set every dropout layer's probability."""
    for each in network.modules():
        if isinstance(each, nn.Dropout):
            each.p = probability


def connected(settings: TrainingSettings) -> torch.device:
    """The device of this process, once Accelerate has connected it with those that were started with it; raises UserError."""
    if is_rank() and settings.device in ("auto", "cuda") and torch.cuda.is_available():
        # Before anything is put on a GPU: all processes would put it on the first one.
        torch.cuda.set_device(int(os.environ[LOCAL_RANK]))
    # The precision is ours to choose: Accelerate knows but one in the life of a process.
    return Accelerator(cpu=choose_device(settings.device).type == "cpu", mixed_precision="no").device


@out_of_memory_told()
def fine_tune(technique: Technique, data: TrainingData, settings: TrainingSettings) -> EncoderModel:
    """Fine-tune an encoder and its head, in this process or, with the same result but for rounding and dropout, in several.

    The loss of a batch is the sum of the technique's per-example losses over (batch size x mean weight), the mean
    taken over the whole sample: the batch's own sum of weights would move the minimum. Every process draws the same
    batches and passes its part of each.

    Raises
    ------
    UserError : the loss is not finite, or memory does not suffice for one message at a time.
    """
    # cuBLAS is deterministic only with a fixed workspace; it must be set before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = connected(settings)
    bf16 = in_bf16(settings.precision, device)
    ranks = Ranks.here()
    set_seed(settings.seed)
    # Only warnings, because some of a GPU's fused attention has no deterministic backward pass.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be overwritten only helps to find faults in torch.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    rng = np.random.default_rng(settings.seed)

    model = untrained_model(settings.model, data.label_names, settings.max_length, device, settings.precision)
    set_head(model.network, technique.head(head_of(model.network, len(data.label_names))))
    freeze(model.network, settings.frozen_layers)
    set_dropout(model.network, settings.dropout)
    weights_there = model.network.state_dict()
    # Before weights are told: processes that expect others would wait for each other.
    ranks.check_same(repr([(name, each.shape) for name, each in weights_there.items()]))
    ranks.as_first(list(weights_there.values()))

    if settings.dropout == 0:
        model.pass_once(settings.frozen_layers, data.corpus, data.texts, settings.keep)
    network, lengths, inputs_of = model.inputs(data.texts)
    class_weights = np.ones(len(data.label_names)) if technique.class_weights is None else technique.class_weights
    weights = data.weights * class_weights[data.labels]
    all_labels, all_weights = torch.tensor(data.labels), torch.tensor(weights, dtype=torch.float32)
    mean_weight = float(weights.mean())

    by_name = {name: each for name, each in model.network.named_parameters() if each.requires_grad}
    trained = list(by_name.values())
    fused = device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    steps = settings.epochs * math.ceil(len(lengths) / settings.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * steps), steps)
    network.train()
    every = max(1, steps // CURVE_POINTS)
    since_report: list[torch.Tensor] = []
    curve: list[tuple[int, int, float, float]] = []
    epochs = (technique.batches(lengths, data.labels, settings.batch_size, rng) for _ in range(settings.epochs))
    batches = (batch for epoch in epochs for batch in epoch)

    def logits_of(rows: np.ndarray) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits: torch.Tensor = network(**inputs_of(rows)).logits
        return logits.float()

    def loss_of(logits: torch.Tensor, rows: np.ndarray, step: int) -> torch.Tensor:
        labels, batch_weights = (each[rows].to(device) for each in (all_labels, all_weights))
        return technique.loss(logits, labels, batch_weights, step / steps).sum() / (len(rows) * mean_weight)

    # Threads would draw dropout in an order that differs each time.
    parts = settings.batch_size // (ranks.count * ROWS_PER_CORE) if settings.dropout == 0 else 1
    cores = workers_for(parts, device)
    gradients = BatchGradients(logits_of, loss_of, trained, ranks, settings.seed, cores)
    checkpoint = None if settings.checkpoint is None else settings.checkpoint.of(model.network.state_dict())
    done = 0
    if checkpoint is not None:
        ranks.check_same(checkpoint.fingerprint)
        saved = ranks.told_by_first(checkpoint.read() if ranks.first else None)
        if saved is not None:
            state = resumed(saved, by_name, optimizer, schedule)
            done, gradients.micro_batch, curve = state["step"], state["micro_batch"], state["curve"]
            since_report = [torch.tensor(each, device=device) for each in state["since_report"]]
            for point in curve:
                settings.on_step(*point)
            if ranks.first:
                tell(f"goes on at step {done} of {steps}, from {checkpoint.path}")
    # What was passed before is drawn again, and skipped.
    left = islice(batches, done, None)
    hidden = None if ranks.first else True
    bar = tqdm(left, initial=done, total=steps, desc="training", unit="step", disable=hidden, leave=False)
    with each_core(cores) as gradients.each_core:
        for step, rows in enumerate(bar, start=done):
            loss = gradients(rows, step)
            nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
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
                curve.append((step + 1, steps, mean_loss, schedule.get_last_lr()[0]))
                settings.on_step(*curve[-1])
                since_report.clear()
            if ranks.first and checkpoint is not None and checkpoint.due():
                losses = [float(each) for each in since_report]
                state = {"step": step + 1, "micro_batch": gradients.micro_batch, "curve": curve, "since_report": losses}
                checkpoint.write(tensors_of(by_name, optimizer), state | {"schedule": schedule.state_dict()})
    return model
