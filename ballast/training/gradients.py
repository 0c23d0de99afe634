"""Gradients of a batch, whatever its parts: on several processes, and in micro-batches where memory is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from ballast.compute.memory import OUT_OF_MEMORY, WHAT_HELPS, first_line, is_out_of_memory
from ballast.exceptions import UserError
from ballast.training.checkpoint import tell
from ballast.training.ranks import Ranks


@dataclass
class BatchGradients:
    """Puts the gradients of a batch's loss into the parameters.

    The loss is computed from the logits of the whole batch, on every process, and what it says of each logit is passed back
    part by part: a loss that looks at all of a batch is right too, and nothing depends on how a batch is cut but rounding and
    dropout, which each part draws anew. When a device runs out of memory, the same batch is passed again in micro-batches of
    half as many messages, and so are the batches that follow. Source: Gao et al., Scaling Deep Contrastive Learning Batch Size
    under Memory Limited Setup (2101.06983), section 3.2.

    logits : rows (m,) -> logits (m, K) float32.
    loss : (logits (b, K), rows (b,), step) -> the loss of a batch.
    parameters : those that are trained.
    seed : of what is drawn in a step, such as dropout; it then depends on nothing that came before.
    cores : in how many parts to pass a batch at once, each by a thread of `each_core`, a `map`.
    micro_batch : the most messages to pass at once; None while all fit.
    """

    logits: Callable[[np.ndarray], Tensor]
    loss: Callable[[Tensor, np.ndarray, int], Tensor]
    parameters: Sequence[nn.Parameter]
    ranks: Ranks
    seed: int
    cores: int = 1
    each_core: Callable[..., Iterable[Any]] = map
    micro_batch: int | None = None

    def __call__(self, rows: np.ndarray, step: int) -> Tensor:
        """The loss of the rows (b,) of a batch; raises UserError when memory does not suffice for one message at a time."""
        while (loss := self._tried(rows, step)) is None:
            for each in self.parameters:
                each.grad = None
            clear_device_cache(garbage_collection=True)
        return loss

    def _tried(self, rows: np.ndarray, step: int) -> Tensor | None:
        """The loss; None when this process or another ran out of memory, for which the micro-batch is halved."""
        own = self.ranks.part(rows)
        # So that the same parameters have gradients everywhere, a process without rows passes one that does not count.
        passed = own if len(own) else rows[:1]
        parts = self._parts(passed)
        sizes = [len(part) for part in parts]
        at_once = self.micro_batch is None or len(parts) == 1
        each = self.each_core if at_once else map
        logits: list[Tensor] = []

        def logits_of(part: np.ndarray, at: int) -> Tensor:
            with torch.set_grad_enabled(at_once):
                return self._logits_of(part, step, at)

        def forward() -> None:
            logits.extend(each(logits_of, parts, range(len(parts))))

        def gradients_of(part: np.ndarray, at: int, gradient: Tensor) -> tuple[Tensor | None, ...]:
            of_part = logits[at] if at_once else self._logits_of(part, step, at)
            return torch.autograd.grad(of_part, self.parameters, gradient, allow_unused=True)

        def backward() -> None:
            for of_part in each(gradients_of, parts, range(len(parts)), torch.split(by_logit, sizes)):
                for parameter, found in zip(self.parameters, of_part, strict=True):
                    if found is not None:
                        parameter.grad = found if parameter.grad is None else parameter.grad.add_(found)

        if not self._within_memory(forward, rows):
            return None
        found = torch.cat([of_part.detach() for of_part in logits])
        whole = self.ranks.whole(found[: len(own)], len(rows)).requires_grad_()
        self._draw_anew(step)
        loss = self.loss(whole, rows, step)
        by_logit = torch.zeros_like(found)
        by_logit[: len(own)] = self.ranks.part(torch.autograd.grad(loss, whole)[0])
        if not self._within_memory(backward, rows):
            return None
        self.ranks.add([each.grad for each in self.parameters if each.grad is not None])
        return loss.detach()

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in one part for each core, or in micro-batches."""
        if self.micro_batch is None:
            return np.array_split(rows, min(self.cores, len(rows)))
        return [rows[at : at + self.micro_batch] for at in range(0, len(rows), self.micro_batch)]

    def _logits_of(self, part: np.ndarray, step: int, at: int) -> Tensor:
        self._draw_anew(step, self.ranks.index, at)
        return self.logits(part)

    def _draw_anew(self, *occasion: int) -> None:
        """Begin random numbers that depend on the occasion only: a part is passed twice, and a training may be resumed."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *occasion)).generate_state(1, np.uint64)[0]))

    def _within_memory(self, work: Callable[[], None], rows: np.ndarray) -> bool:
        """Do work; False, with a smaller micro-batch, when memory did not suffice on this process or another."""
        reason = ""
        try:
            work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        if not self.ranks.any(bool(reason)):
            return True
        size = min(self.micro_batch or len(rows), math.ceil(len(rows) / self.ranks.count))
        if size == 1:
            raise UserError(f"{OUT_OF_MEMORY}, with one message at a time: {reason or 'on another process'}; {WHAT_HELPS}")
        self.micro_batch = math.ceil(size / 2)
        if self.ranks.first:
            line = f"{OUT_OF_MEMORY} with {size} messages at a time: from here {self.micro_batch}; the batch stays {len(rows)}"
            tell(line)
        return False
