"""The processes that train together, and what they tell each other. Torch calls the number of such a process its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from ballast.exceptions import UserError

# Sent at once, as DistributedDataParallel does: small enough to have room, large enough not to wait for each tensor.
BUCKET_BYTES = 25 * 2**20
Rows = TypeVar("Rows", np.ndarray, Tensor)


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a training; `host` is the group for what is agreed on beside the GPUs."""

    index: int = 0
    count: int = 1
    host: Any = None

    @classmethod
    def here(cls) -> Ranks:
        """Where this process stands, once Accelerate has connected those that were started together."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), distributed.new_group(backend="gloo"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.index == 0

    def part(self, rows: Rows) -> Rows:
        """Of the rows of a batch (b, ...) those that this process passes, maybe none; each is one process's."""
        return rows[self.index :: self.count]

    def whole(self, part: Tensor, size: int) -> Tensor:
        """Values (size, K) of a whole batch, in its order, from each process's own part of them."""
        if self.count == 1:
            return part
        whole = part.new_zeros(size, *part.shape[1:])
        self.part(whole).copy_(part)
        distributed.all_reduce(whole)
        return whole

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor the sum over the processes."""
        if self.count == 1:
            return
        begun = 0
        for end in range(1, len(tensors) + 1):
            bucket = tensors[begun:end]
            if end == len(tensors) or sum(each.nbytes for each in bucket) >= BUCKET_BYTES:
                flat = torch.cat([each.reshape(-1) for each in bucket])
                distributed.all_reduce(flat)
                for each, summed in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):  # type: ignore[no-untyped-call]
                    each.copy_(summed.view_as(each))
                begun = end

    def any(self, mine: bool) -> bool:
        """Whether it is so on any process."""
        if self.count == 1:
            return mine
        said = torch.tensor(int(mine))
        distributed.all_reduce(said, distributed.ReduceOp.MAX, group=self.host)
        return bool(said)

    def as_first(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor what it is on the first process."""
        if self.count > 1:
            for each in tensors:
                distributed.broadcast(each, src=0)

    def told_by_first(self, content: bytes | None) -> bytes | None:
        """Bytes of the first process, or None, on all."""
        if self.count == 1:
            return content
        size = torch.tensor(-1 if content is None else len(content))
        distributed.broadcast(size, src=0, group=self.host)
        if size < 0:
            return None
        sent = torch.empty(int(size), dtype=torch.uint8)
        if self.first and content is not None:
            sent.numpy()[:] = np.frombuffer(content, dtype=np.uint8)
        distributed.broadcast(sent, src=0, group=self.host)
        return sent.numpy().tobytes()

    def check_same(self, fingerprint: str) -> None:
        """Raise UserError unless all processes train the same: a node may be at another commit, or have other data."""
        if self.any(self.told_by_first(fingerprint.encode()) != fingerprint.encode()):
            raise UserError(
                "the processes of this training differ in settings, data or sources; bring each node to the same commit and"
                " `dvc pull` what it trains on"
            )
