"""What a training needs to go on after it was interrupted, in one safetensors file that is there whole or not at all."""

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


def digest(tensors: Mapping[str, Tensor], *said: str) -> str:
    """Hexadecimal SHA-256 of tensors with their names, shapes and types, and of words."""
    found = hashlib.sha256(json.dumps(said).encode())
    for name, each in sorted(tensors.items()):
        found.update(f"{name} {tuple(each.shape)} {each.dtype}".encode())
        found.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass
class Checkpoint:
    """The checkpoint of one training: where it is, how many minutes lie between two, and what decides the training's result.

    A checkpoint of another fingerprint is another training's and is not used.
    """

    path: Path
    minutes: float
    fingerprint: str
    last: float = field(default_factory=time.monotonic)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def of(self, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """The same for a training that begins with these weights."""
        return Checkpoint(self.path, self.minutes, digest(tensors, self.fingerprint), self.last)

    def due(self) -> bool:
        """Whether the minutes have passed since the last one, or since the beginning."""
        return time.monotonic() - self.last >= 60 * self.minutes

    def write(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the last one; a disk that is full does not end the training."""
        said = json.dumps(state, sort_keys=True)
        metadata = {"fingerprint": self.fingerprint, "state": said, "sha256": digest(tensors, self.fingerprint, said)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A new file's permissions, which the library does not give.
            self._temporary.touch()
            mode = S_IMODE(self._temporary.stat().st_mode)
            save_file({name: each.detach().contiguous() for name, each in tensors.items()}, self._temporary, metadata)
            self._temporary.chmod(mode)
            to_disk(self._temporary)
            self._temporary.replace(self.path)
            to_disk(self.path.parent)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                self._temporary.unlink()
            tell(f"{self.path}: no checkpoint could be written ({error}); the training goes on")
        self.last = time.monotonic()

    def read(self) -> bytes | None:
        """The bytes of the checkpoint; None where there is none, or none that can be trusted, which is said."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            tell(f"{self.path}: ignored, the training begins anew: {error}")
            return None
        try:
            found, tensors = parsed(content)
            whole = found["sha256"] == digest(tensors, found["fingerprint"], found["state"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            tell(f"{self.path}: ignored, the training begins anew: not a checkpoint ({error})")
            return None
        if not whole or found["fingerprint"] != self.fingerprint:
            reason = "of other settings, data, sources or weights" if whole else "its sha256 is wrong"
            tell(f"{self.path}: ignored, the training begins anew: {reason}")
            return None
        return content

    def remove(self) -> None:
        """Remove it, once what the training gives is safe."""
        self._temporary.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def tell(line: str) -> None:
    """Print a line beside the progress bar."""
    tqdm.write(f"train: {line}", file=sys.stderr)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parsed(content: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The words and the tensors of a checkpoint's bytes; raises SafetensorError, ValueError or KeyError when it is none."""
    tensors = load(content)
    # The format: the header's length in eight bytes, then the header in JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"], tensors


def tensors_of(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """The weights that are trained, by name, and the optimizer's state of each."""
    tensors: dict[str, Tensor] = {f"{WEIGHT}{name}": each for name, each in parameters.items()}
    for at, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{at}.{key}": each for key, each in state.items()}
    return tensors


def resumed(
    content: bytes, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, schedule: LRScheduler
) -> dict[str, Any]:
    """Put weights, optimizer and schedule into the state of a checkpoint's bytes; what else it holds."""
    found, tensors = parsed(content)
    state: dict[str, Any] = json.loads(found["state"])
    of_optimizer: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, each in tensors.items():
            if name.startswith(WEIGHT):
                parameters[name.removeprefix(WEIGHT)].copy_(each)
            else:
                at, key = name.split(".")
                of_optimizer.setdefault(int(at), {})[key] = each
    optimizer.load_state_dict({"state": of_optimizer, "param_groups": optimizer.state_dict()["param_groups"]})
    schedule.load_state_dict(state.pop("schedule"))
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return state
