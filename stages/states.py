"""What frozen layers gave for the messages, kept from one training to the next.

DVC need not know these files: a file's name is the fingerprint of all that decides its content, and each can be computed anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from stages.files import STATES, locked, replaced

if TYPE_CHECKING:
    from torch import Tensor

# One encoder's layers and its embeddings, and those of the run before.
MOST_FILES = 4


def kept(fingerprint: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The arrays that `compute` gives, from the file of an earlier training where there is one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = STATES / f"{fingerprint}.safetensors"
    with locked(path):
        try:
            arrays = load_file(path)
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError) as error:
            print(f"{path}: {error}; it is computed anew", file=sys.stderr)
        else:
            os.utime(path)
            return arrays
        arrays = compute()
        try:
            with replaced(path) as temporary:
                save_file(arrays, temporary)
        except (OSError, SafetensorError) as error:
            print(f"{path}: cannot be kept ({error}); the training goes on", file=sys.stderr)
    for old in sorted(STATES.glob("*.safetensors"), key=lambda each: each.stat().st_mtime)[:-MOST_FILES]:
        old.unlink(missing_ok=True)
    return arrays
