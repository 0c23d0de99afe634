"""The deployed model of this checkout: which version it is, and its files, checked against their digests.

`ballast.models.deployed` reads a version; this module adds the command that restores the file to its errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast.exceptions import UserError
from ballast.models import deployed
from ballast.models.deployed import MANIFEST, MODEL, Version, VersionFileError
from stages.store.project import PROJECT
from stages.store.remedies import damaged, missing, remedy

__all__ = [
    "MANIFEST",
    "MODEL",
    "REFERENCE",
    "VOCABULARY",
    "Version",
    "check_files",
    "current_version",
    "history",
    "indices",
    "pinned",
    "read_manifest",
    "read_version",
    "version_in",
]
REFERENCE = "reference.parquet"
VOCABULARY = "vocabulary.safetensors"


@contextlib.contextmanager
def with_remedy() -> Iterator[None]:
    """Raise the errors of a version's files as UserError that says which command restores the file."""
    try:
        yield
    except VersionFileError as error:
        if error.reason is None:
            raise missing(error.path) from error
        if isinstance(error.reason, Exception):
            raise damaged(error.path, error.reason) from error
        raise UserError(f"{error.path}: {error.reason}; {remedy(error.path)}") from error


def indices(names: pd.Series, labels: list[str]) -> np.ndarray:
    """Class indices (n,) of label names (n,)."""
    return pd.Categorical(names, categories=labels).codes.astype(np.int64)


def history() -> list[dict[str, str]]:
    """Every switch from one version to another, the oldest first; raises UserError if `current.json` is damaged."""
    if not PROJECT.current.exists():
        return []
    with with_remedy():
        return deployed.history_of(PROJECT.current, deployed.read_object(PROJECT.current))


def pinned(name: str) -> str | None:
    """The sha256 that the manifest of a version had when it was deployed; None if it never was."""
    return deployed.pin_of(name, history())


def current_version() -> str:
    """The name of the deployed version; raises UserError if there is none."""
    if not PROJECT.current.exists():
        raise UserError(
            f"{PROJECT.current}: no such file, so no model is deployed; `python -m stages.production.promote` deploys"
            " the selected one"
        )
    with with_remedy():
        return deployed.read_pointer(PROJECT.current)[0]


def read_version(name: str) -> Version:
    """A deployed version; raises UserError if a file is missing or differs from what was deployed."""
    return version_in(PROJECT.deployed / name, pinned(name))


def version_in(folder: Path, pin: str | None) -> Version:
    """The version in a folder; raises UserError if its manifest has another sha256 than `pin`, or a file than the manifest."""
    with with_remedy():
        return deployed.read_version(folder, pin)


def read_manifest(path: Path, pin: str | None) -> tuple[dict[str, Any], str]:
    """A version's manifest and its sha256; raises UserError if that is not the pin or, without a pin, its digest is wrong."""
    with with_remedy():
        return deployed.read_manifest(path, pin)


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise UserError for a file (relative name: sha256) of a version that is missing or different."""
    with with_remedy():
        deployed.check_files(folder, files)
