"""Save an encoder with its frozen layers in a file of their own, which is the same in every model of that encoder.

A store that identifies files by their content then holds the frozen layers of many trainings once. The files have the names and
the index of a sharded checkpoint of transformers, so `from_pretrained` reads them.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ballast.models.base import WEIGHTS

FROZEN, TRAINED = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = f"{WEIGHTS}.index.json"
# Smaller frozen layers stay in the file of the other weights.
SMALLEST_BYTES = 2**20


def save_network(network: PreTrainedModel, folder: Path) -> None:
    """Save a network as `save_pretrained` does, with frozen layers of 1 MiB or more in a file of their own."""
    network.save_pretrained(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        # The checkpoint is so large that it is sharded anyway.
        return
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    weights = load_file(path)
    size = sum(tensor.nbytes for name, tensor in weights.items() if name in frozen)
    if size < SMALLEST_BYTES or weights.keys() <= frozen:
        return
    for file, names in ((FROZEN, weights.keys() & frozen), (TRAINED, weights.keys() - frozen)):
        save_file({name: weights[name] for name in sorted(names)}, folder / file, {"format": "pt"})
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())},
        "weight_map": {name: FROZEN if name in frozen else TRAINED for name in weights},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path.unlink()
