"""Collective operations among the processes of one training. Torch calls the number of such a process its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from ballast.exceptions import UserError

# Size of one all-reduce, as in DistributedDataParallel: small enough to fit, large enough not to wait for each tensor.
BUCKET_BYTES = 25 * 2**20
Rows = TypeVar("Rows", np.ndarray, Tensor)


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and the number of processes.

    cpu_group : process group for values on the CPU, also if tensors are on GPUs.
    """

    rank: int = 0
    world_size: int = 1
    cpu_group: Any = None

    @classmethod
    def current(cls) -> Ranks:
        """The ranks of the running training; a single process if Accelerate has not initialised a process group."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), distributed.new_group(backend="gloo"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, rows: Rows) -> Rows:
        """The rows of a batch (b, ...) that this process computes, possibly none. Each row belongs to one process."""
        return rows[self.rank :: self.world_size]

    def gather(self, shard: Tensor, size: int) -> Tensor:
        """Values (size, K) of the whole batch, in its order, from the shards of all processes."""
        if self.world_size == 1:
            return shard
        whole = shard.new_zeros(size, *shard.shape[1:])
        self.shard(whole).copy_(shard)
        distributed.all_reduce(whole)
        return whole

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.world_size == 1:
            return
        start = 0
        for end in range(1, len(tensors) + 1):
            bucket = tensors[start:end]
            if end == len(tensors) or sum(tensor.nbytes for tensor in bucket) >= BUCKET_BYTES:
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                distributed.all_reduce(flat)
                sums = flat.split([tensor.numel() for tensor in bucket])  # type: ignore[no-untyped-call]
                for tensor, total in zip(bucket, sums, strict=True):
                    tensor.copy_(total.view_as(tensor))
                start = end

    def any_rank(self, condition: bool) -> bool:
        """Whether the condition holds on any process."""
        if self.world_size == 1:
            return condition
        holds = torch.tensor(int(condition))
        distributed.all_reduce(holds, distributed.ReduceOp.MAX, group=self.cpu_group)
        return bool(holds)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the main process."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def broadcast_bytes(self, content: bytes | None) -> bytes | None:
        """The main process's bytes, or None, on all processes."""
        if self.world_size == 1:
            return content
        size = torch.tensor(-1 if content is None else len(content))
        distributed.broadcast(size, src=0, group=self.cpu_group)
        if size < 0:
            return None
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.is_main and content is not None:
            buffer.numpy()[:] = np.frombuffer(content, dtype=np.uint8)
        distributed.broadcast(buffer, src=0, group=self.cpu_group)
        return buffer.numpy().tobytes()

    def check_same(self, fingerprint: str) -> None:
        """Raise UserError unless all processes have the same fingerprint: a node may have other code or other data."""
        if self.any_rank(self.broadcast_bytes(fingerprint.encode()) != fingerprint.encode()):
            raise UserError(
                "the processes of this training differ in settings, data or sources; bring all nodes to the same commit and"
                " the same data"
            )
