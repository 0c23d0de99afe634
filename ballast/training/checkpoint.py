"""Checkpoints from which an interrupted training resumes: one safetensors file, replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_IMODE
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

WEIGHT = "weight."


def tensors_sha256(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """Hexadecimal SHA-256 of tensors with their names, shapes and types, and of texts."""
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass
class Checkpoint:
    """The checkpoint of one training.

    minutes : time between two checkpoints.
    fingerprint : of everything that determines the training's result. A file with another fingerprint is ignored.
    last : time of the last checkpoint, or of the start (`time.monotonic`).
    """

    path: Path
    minutes: float
    fingerprint: str
    last: float = field(default_factory=time.monotonic)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def for_weights(self, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """The checkpoint of a training that starts from these weights."""
        return Checkpoint(self.path, self.minutes, tensors_sha256(tensors, self.fingerprint), self.last)

    def due(self) -> bool:
        """Whether the next checkpoint is due."""
        return time.monotonic() - self.last >= 60 * self.minutes

    def write(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the last checkpoint. The training continues if the file cannot be written, for example on a full disk."""
        text = json.dumps(state, sort_keys=True)
        metadata = {"fingerprint": self.fingerprint, "state": text, "sha256": tensors_sha256(tensors, self.fingerprint, text)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The library does not set the usual permissions of a new file.
            self._temporary.touch()
            mode = S_IMODE(self._temporary.stat().st_mode)
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, self._temporary, metadata)
            self._temporary.chmod(mode)
            fsync(self._temporary)
            self._temporary.replace(self.path)
            fsync(self.path.parent)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                self._temporary.unlink()
            log_line(f"{self.path}: cannot write the checkpoint ({error}); the training continues")
        self.last = time.monotonic()

    def read(self) -> bytes | None:
        """The bytes of the checkpoint, or None if there is none. A file that cannot be used is reported and ignored."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log_line(f"{self.path}: checkpoint ignored, the training starts over: {error}")
            return None
        try:
            metadata, tensors = parse_checkpoint(content)
            intact = metadata["sha256"] == tensors_sha256(tensors, metadata["fingerprint"], metadata["state"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            log_line(f"{self.path}: checkpoint ignored, the training starts over: not a checkpoint ({error})")
            return None
        if not intact or metadata["fingerprint"] != self.fingerprint:
            reason = "it has other settings, data, sources or weights" if intact else "its sha256 is wrong"
            log_line(f"{self.path}: checkpoint ignored, the training starts over: {reason}")
            return None
        return content

    def remove(self) -> None:
        """Remove the file, once the trained model is saved."""
        self._temporary.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def log_line(line: str) -> None:
    """Print a line beside the progress bar."""
    tqdm.write(f"train: {line}", file=sys.stderr)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parse_checkpoint(content: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a checkpoint. Raises SafetensorError, ValueError or KeyError for other bytes."""
    tensors = load(content)
    # The format: the length of the header in eight bytes, then the header as JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"], tensors


def training_tensors(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """The trained weights by name, and the optimizer's state of each."""
    tensors: dict[str, Tensor] = {f"{WEIGHT}{name}": parameter for name, parameter in parameters.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{key}": tensor for key, tensor in state.items()}
    return tensors


def restore(
    content: bytes, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, schedule: LRScheduler
) -> dict[str, Any]:
    """Restore weights, optimizer and schedule from a checkpoint. Returns the rest of its state."""
    metadata, tensors = parse_checkpoint(content)
    state: dict[str, Any] = json.loads(metadata["state"])
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith(WEIGHT):
                parameters[name.removeprefix(WEIGHT)].copy_(tensor)
            else:
                index, key = name.split(".")
                optimizer_state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": optimizer.state_dict()["param_groups"]})
    schedule.load_state_dict(state.pop("schedule"))
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return state
