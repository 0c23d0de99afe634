"""The training loop: optimizer steps, the loss curve, and checkpoints from which an interrupted training resumes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from ballast.compute.parallel import thread_map
from ballast.exceptions import DivergedError
from ballast.technique import TrainingSettings
from ballast.training.checkpoint import Checkpoint, log_line, restore, training_tensors
from ballast.training.gradients import BatchGradients

# Points of the loss curve. Each also checks that the loss is finite.
CURVE_POINTS = 100


@dataclass
class TrainingLoop:
    """The state of a training.

    parameters : trained parameters by name.
    completed : steps that are done.
    curve : (step, steps, mean loss since the previous point, learning rate).
    recent_losses : losses since the last point of the curve.
    """

    settings: TrainingSettings
    steps: int
    parameters: Mapping[str, nn.Parameter]
    gradients: BatchGradients
    optimizer: Optimizer
    schedule: LRScheduler
    checkpoint: Checkpoint | None = None
    completed: int = 0
    curve: list[tuple[int, int, float, float]] = field(default_factory=list)
    recent_losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def start(
        cls, settings: TrainingSettings, steps: int, parameters: Mapping[str, nn.Parameter], gradients: BatchGradients
    ) -> TrainingLoop:
        """A training of `steps` steps with AdamW and a learning rate that rises and then falls linearly."""
        trained = list(parameters.values())
        fused = trained[0].device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
        schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * steps), steps)
        return cls(settings, steps, parameters, gradients, optimizer, schedule)

    def resume_from(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint if there is one, and write checkpoints to its place from now on."""
        ranks = self.gradients.ranks
        self.checkpoint = checkpoint
        ranks.check_same(checkpoint.fingerprint)
        content = ranks.broadcast_bytes(checkpoint.read() if ranks.is_main else None)
        if content is None:
            return
        state = restore(content, self.parameters, self.optimizer, self.schedule)
        self.completed, self.gradients.micro_batch, self.curve = state["step"], state["micro_batch"], state["curve"]
        device = next(iter(self.parameters.values())).device
        self.recent_losses = [torch.tensor(loss, device=device) for loss in state["since_report"]]
        for point in self.curve:
            self.settings.on_step(*point)
        if ranks.is_main:
            log_line(f"resuming at step {self.completed} of {self.steps}, from {checkpoint.path}")

    def run(self, batches: Iterable[np.ndarray]) -> None:
        """Take one optimizer step for each batch of rows. Completed steps are skipped: their batches are drawn again."""
        main = self.gradients.ranks.is_main
        remaining = islice(batches, self.completed, None)
        bar = tqdm(
            remaining,
            initial=self.completed,
            total=self.steps,
            desc="training",
            unit="step",
            disable=None if main else True,
            leave=False,
        )
        with thread_map(self.gradients.cores) as self.gradients.parallel_map:
            for rows in bar:
                self._step(rows)
                if main and self.checkpoint is not None and self.checkpoint.due():
                    self.checkpoint.write(training_tensors(self.parameters, self.optimizer), self._state())

    def _step(self, rows: np.ndarray) -> None:
        """One optimizer step."""
        loss = self.gradients(rows, self.completed)
        nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.recent_losses.append(loss.detach())
        self.completed += 1
        if self.completed % max(1, self.steps // CURVE_POINTS) == 0 or self.completed == self.steps:
            self._report()

    def _report(self) -> None:
        """Add a point to the curve. Raises DivergedError if the loss is not finite."""
        mean_loss = float(torch.stack(self.recent_losses).mean())
        if not math.isfinite(mean_loss):
            raise DivergedError(
                f"learning_rate {self.settings.learning_rate:g} gives a loss of {mean_loss} at step {self.completed} of"
                f" {self.steps}; lower it, or the weights of the technique"
            )
        self.curve.append((self.completed, self.steps, mean_loss, float(self.schedule.get_last_lr()[0])))
        self.settings.on_step(*self.curve[-1])
        self.recent_losses.clear()

    def _state(self) -> dict[str, Any]:
        """The state beside the tensors, as JSON."""
        return {
            "step": self.completed,
            "micro_batch": self.gradients.micro_batch,
            "curve": self.curve,
            "since_report": [float(loss) for loss in self.recent_losses],
            "schedule": self.schedule.state_dict(),
        }
