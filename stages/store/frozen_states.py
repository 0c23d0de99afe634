"""A cache of the outputs of frozen layers, which several trainings share.

DVC does not track these files: the name of a file is the fingerprint of everything that determines its content, and the file
can be computed again. A problem with a file is reported and does not stop the training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stages.store.files import locked, replaced

if TYPE_CHECKING:
    from torch import Tensor

# The hidden states and embeddings of one encoder, and those of the previous run.
MOST_FILES = 4


def cached_states(folder: Path, fingerprint: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The arrays that `compute` returns, read from an intact file of an earlier training if the folder has one."""
    path = folder / f"{fingerprint}.safetensors"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except OSError as error:
            print(f"{path}: cannot be cached ({error}); the training continues", file=sys.stderr)
            return compute()
        arrays = read(path)
        if arrays is None:
            arrays = compute()
            write(path, arrays)
    with suppress(OSError):
        for old in sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)[:-MOST_FILES]:
            old.unlink(missing_ok=True)
    return arrays


def read(path: Path) -> dict[str, Tensor] | None:
    """The arrays of a file; None if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    from ballast.training.checkpoint import tensors_sha256

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        print(f"{path}: {error}; it is computed again", file=sys.stderr)
        return None
    if tensors_sha256(arrays) != expected:
        print(f"{path}: its sha256 is wrong; it is computed again", file=sys.stderr)
        return None
    with suppress(OSError):
        os.utime(path)
    return arrays


def write(path: Path, arrays: dict[str, Tensor]) -> None:
    """Write the arrays, if the disk has room."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from ballast.training.checkpoint import tensors_sha256

    try:
        with replaced(path) as temporary:
            save_file(arrays, temporary, {"sha256": tensors_sha256(arrays)})
    except (OSError, SafetensorError) as error:
        print(f"{path}: cannot be cached ({error}); the training continues", file=sys.stderr)
