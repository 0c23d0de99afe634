"""Reading what the stages wrote: each file carries its digest, and one that is not as it was written is an error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.paths import regular_file

# What makes a file anew; stages/store/remedies.py says the same of all files, and a test compares the two.
REMEDIES = (
    (
        r"production/retrain/(?P<key>[^/]+)/",
        "delete production/retrain/{key}/, then run `python -m flows.retrain {option} {key}`",
    ),
    (
        r"production/deployed/current\.json$",
        "restore it from a backup, or move it away and run `python -m flows.promote --force`",
    ),
    (
        r"production/deployed/[^/]+/",
        "run `python -m flows.promote` to deploy the selected model anew, or `python -m flows.promote --rollback`",
    ),
    (r"production/deployed/\.announced$", "delete it: the next `python -m flows.promote` announces all switches again"),
    (r"production/watch/(?P<window>[^/]+)\.json$", "delete it, then run `python -m flows.watch --window {window}`"),
    (r"", "delete it, then run `dvc repro`"),
)
ADOPT = "python -m stages.production.verify --adopt"


def remedy(path: Path) -> str:
    """What to do about a spoilt file."""
    for pattern, words in REMEDIES:
        if found := re.search(f"(?:^|/){pattern}" if pattern else pattern, path.absolute().as_posix()):
            names = found.groupdict()
            option = "--window" if Path(f"production/watch/{names.get('key')}.json").exists() else "--key"
            return words.format(option=option, **names)
    raise AssertionError("the last pattern matches every path")


def read_state(path: Path) -> dict[str, Any]:
    """The JSON object in a file, without its digest; raises UserError that says what makes the file anew."""
    try:
        return digest.parse_json(read_bytes(path))
    except digest.NoDigestError as error:
        raise UserError(f"{path}: {error}; if an earlier version wrote it, run `{ADOPT}`; else {remedy(path)}") from error
    except ValueError as error:
        raise UserError(f"{path}: not as it was written ({' '.join(str(error).split())}); {remedy(path)}") from error


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """The bytes of a file; raises UserError where there is none, or where they have not the sha256 that another file holds."""
    regular_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy(path).removeprefix('delete it, then ')}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: its sha256 is wrong; {remedy(path)}")
    return content


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, whole or not at all."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(digest.with_digest(content), sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
