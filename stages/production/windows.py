"""Windows of scored messages: their names, their files, and the version that scored them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ballast.exceptions import UserError
from stages.production.deployed import MANIFEST, Version, read_version
from stages.store.checked import read_table
from stages.store.files import LONGEST_NAME
from stages.store.project import PROJECT
from stages.store.remedies import damaged

# The file index.html is the time line of all windows.
WINDOW = re.compile(rf"(?!index$)[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")


def quoted_name(name: str | None) -> str:
    """A name in quotes for an error message; only the beginning of a long name."""
    return repr(name) if name is None or len(name) <= LONGEST_NAME else f"{name[:40]!r}... ({len(name):,} characters)"


def read_window(name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A scored window and the metadata of its scoring; raises UserError if the file is missing or damaged."""
    path = PROJECT.scored / f"{name}.parquet"
    if not path.is_file():
        raise UserError(f"{path}: no such window; `python -m flows.score SOURCE --window {name}` scores it")
    table = read_table(path)
    try:
        metadata = json.loads(table.schema.metadata[b"ballast"])
        missing = [key for key in ("model", "sha256", "quarantined") if key not in metadata]
        missing += [key for key in ("id", "text", "group") if key not in table.column_names]
        if missing:
            raise KeyError(f"{', '.join(missing)} missing")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"not a scored window ({error})") from error
    return table.to_pandas(), metadata


def version_of(name: str, metadata: Mapping[str, Any]) -> Version:
    """The version that scored a window; raises UserError if it was deleted, or if another version has its name."""
    if not (PROJECT.deployed / metadata["model"] / MANIFEST).is_file():
        reason = "older versions are deleted (production.keep.versions)"
        raise UserError(f"{name}: was scored by version {metadata['model']}, which no longer exists: {reason}; score it again")
    version = read_version(metadata["model"])
    if version.sha256 != metadata["sha256"]:
        raise UserError(
            f"{name}: was scored by a version {version.name} that differs from that of {PROJECT.deployed}; score it again"
        )
    return version
