"""Read and write JSON state files; a digest in each file shows whether it is unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.paths import regular_file

ROOT = Path(__file__).resolve().parents[1]
DELETE = "delete it, then "


def remedies(path: Path) -> dict[str, str]:
    """How to recreate a damaged file, according to the stages: {remedy, adopt}; the latter for a file of an earlier version."""
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "stages.store.remedies", str(path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": python_path}, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def read_state(path: Path) -> dict[str, Any]:
    """The JSON object in a file, without its digest; raises UserError with the command that makes the file again."""
    try:
        return digest.parse_json(read_bytes(path))
    except digest.NoDigestError as error:
        hints = remedies(path)
        hint = f"if an earlier version wrote it, run `{hints['adopt']}`; else {hints['remedy']}"
        raise UserError(f"{path}: {error}; {hint}") from error
    except ValueError as error:
        raise UserError(
            f"{path}: not as it was written ({' '.join(str(error).split())}); {remedies(path)['remedy']}"
        ) from error


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """The bytes of a file; raises UserError if it does not exist or differs from the expected sha256."""
    regular_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedies(path)['remedy'].removeprefix(DELETE)}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: its sha256 is wrong; {remedies(path)['remedy']}")
    return content


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, atomically."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(digest.with_digest(content), sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
