"""Gradients of a batch that is split over processes, threads, and micro-batches when memory is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from ballast.compute.memory import OUT_OF_MEMORY, REMEDY, first_line, is_out_of_memory
from ballast.exceptions import TrainingError
from ballast.training.checkpoint import log_line
from ballast.training.ranks import Ranks


@dataclass
class BatchGradients:
    """Compute the gradients of a batch's loss and store them in the parameters.

    Every process computes the loss from the logits of the whole batch, and passes its gradient back part by part. A loss can
    therefore depend on the whole batch. The split affects only rounding and dropout, which each part draws separately. When a
    device runs out of memory, this batch and the following ones are passed in micro-batches of half the size.
    Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (2101.06983), section 3.2.

    logits : rows (m,) -> logits (m, K) float32.
    loss : (logits (b, K), rows (b,), step) -> loss of the batch.
    parameters : the trained parameters.
    seed : of random numbers in a step, such as dropout. They do not depend on earlier steps.
    cores : number of parts to pass at once, each in a thread of `parallel_map`.
    micro_batch : largest number of messages to pass at once; None while all fit.
    """

    logits: Callable[[np.ndarray], Tensor]
    loss: Callable[[Tensor, np.ndarray, int], Tensor]
    parameters: Sequence[nn.Parameter]
    ranks: Ranks
    seed: int
    cores: int = 1
    parallel_map: Callable[..., Iterable[Any]] = map
    micro_batch: int | None = None

    def __call__(self, rows: np.ndarray, step: int) -> Tensor:
        """Loss of the rows (b,) of a batch. Raises TrainingError if memory is too small for one message at a time."""
        while (loss := self._try(rows, step)) is None:
            for parameter in self.parameters:
                parameter.grad = None
            clear_device_cache(garbage_collection=True)
        return loss

    def _try(self, rows: np.ndarray, step: int) -> Tensor | None:
        """The loss, or None if this process or another one ran out of memory; the micro-batch is then halved."""
        own = self.ranks.shard(rows)
        # A process without rows passes one row with gradient 0, so that all processes have gradients of the same parameters.
        parts = self._parts(own if len(own) else rows[:1])
        sizes = [len(part) for part in parts]
        at_once = self.micro_batch is None or len(parts) == 1
        parallel_map = self.parallel_map if at_once else map
        logits: list[Tensor] = []

        def logits_of(part: np.ndarray, index: int) -> Tensor:
            with torch.set_grad_enabled(at_once):
                return self._logits_of(part, step, index)

        def forward() -> None:
            logits.extend(parallel_map(logits_of, parts, range(len(parts))))

        def gradients_of(part: np.ndarray, index: int, gradient: Tensor) -> tuple[Tensor | None, ...]:
            part_logits = logits[index] if at_once else self._logits_of(part, step, index)
            return torch.autograd.grad(part_logits, self.parameters, gradient, allow_unused=True)

        def backward() -> None:
            logit_gradients = torch.split(by_logit, sizes)
            for part_gradients in parallel_map(gradients_of, parts, range(len(parts)), logit_gradients):
                for parameter, gradient in zip(self.parameters, part_gradients, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

        if not self._within_memory(forward, rows):
            return None
        own_logits = torch.cat([part_logits.detach() for part_logits in logits])
        whole = self.ranks.gather(own_logits[: len(own)], len(rows)).requires_grad_()
        self._reseed(step)
        loss = self.loss(whole, rows, step)
        by_logit = torch.zeros_like(own_logits)
        by_logit[: len(own)] = self.ranks.shard(torch.autograd.grad(loss, whole)[0])
        if not self._within_memory(backward, rows):
            return None
        self.ranks.all_reduce([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        return loss.detach()

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows split into one part per core, or into micro-batches."""
        if self.micro_batch is None:
            return np.array_split(rows, min(self.cores, len(rows)))
        return [rows[start : start + self.micro_batch] for start in range(0, len(rows), self.micro_batch)]

    def _logits_of(self, part: np.ndarray, step: int, index: int) -> Tensor:
        self._reseed(step, self.ranks.rank, index)
        return self.logits(part)

    def _reseed(self, *occasion: int) -> None:
        """Seed random numbers by the occasion only: a part may be passed twice, and a training may be resumed."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *occasion)).generate_state(1, np.uint64)[0]))

    def _within_memory(self, work: Callable[[], None], rows: np.ndarray) -> bool:
        """Do work. If any process runs out of memory, lower the micro-batch and return False."""
        reason = ""
        try:
            work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        if not self.ranks.any_rank(bool(reason)):
            return True
        size = min(self.micro_batch or len(rows), math.ceil(len(rows) / self.ranks.world_size))
        if size == 1:
            raise TrainingError(f"{OUT_OF_MEMORY}, with one message at a time: {reason or 'on another process'}; {REMEDY}")
        self.micro_batch = math.ceil(size / 2)
        if self.ranks.is_main:
            log_line(
                f"{OUT_OF_MEMORY} with {size} messages at a time; continuing with {self.micro_batch}, the batch size stays"
                f" {len(rows)}"
            )
        return False
