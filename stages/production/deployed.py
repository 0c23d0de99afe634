"""The deployed model: which version it is, that its files are what they were when it was deployed, and what it decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

import ballast
import ballast.io.digest as digest
from ballast.evaluation.operating_point import cost_matrix, decide
from ballast.evaluation.priors import correct_prior
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import regular_file
from ballast.labels import check_all_labels
from ballast.models.base import Model
from stages.store.files import DEPLOYED, read_json
from stages.store.remedies import missing, remedy, spoilt

CURRENT = DEPLOYED / "current.json"
MANIFEST = "manifest.json"
MODEL = "model"
REFERENCE = "reference.parquet"
VOCABULARY = "vocabulary.safetensors"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A deployed version: `sha256` is that of its manifest; priors (K,) and costs (K, K) are in the order of the labels."""

    name: str
    folder: Path
    manifest: dict[str, Any]
    sha256: str
    labels: list[str]
    effective_prior: np.ndarray
    production_prior: np.ndarray
    costs: np.ndarray

    def load(self) -> Model:
        """The model; raises UserError when a file differs from its sha256."""
        model = ballast.load(self.folder / MODEL)
        if model.labels != self.labels:
            raise UserError(
                f"{self.folder / MANIFEST}: the labels are {', '.join(self.labels)},"
                f" those of its model {', '.join(model.labels)}; promote it again"
            )
        return model

    def posteriors(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) float64 on the production prior, from the model's own logits (n, K)."""
        return softmax(correct_prior(logits.astype(np.float64), self.effective_prior, self.production_prior), axis=1)

    def decisions(self, posteriors: np.ndarray) -> np.ndarray:
        """Classes (n,) of least expected cost at the operating point, from posteriors (n, K)."""
        return decide(posteriors, self.costs)


def indices(names: pd.Series, labels: list[str]) -> np.ndarray:
    """Class indices (n,) of label names (n,)."""
    return pd.Categorical(names, categories=labels).codes.astype(np.int64)


def history() -> list[dict[str, str]]:
    """Every switch from one version to another, the oldest first; raises UserError when the file is broken."""
    if not CURRENT.exists():
        return []
    try:
        return [dict(entry) for entry in read_json(CURRENT)["history"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{CURRENT}: has no history of versions; {remedy(CURRENT)}") from error


def pinned(name: str) -> str | None:
    """The sha256 that the manifest of a version had when it was deployed; None of one that never was."""
    return next((entry.get("sha256") for entry in history() if entry["version"] == name), None)


def current_version() -> str:
    """The name of the deployed version; raises UserError when there is none."""
    if not CURRENT.exists():
        raise UserError(
            f"{CURRENT}: no such file, so no model is deployed; `python -m stages.production.promote` deploys the selected one"
        )
    current = read_json(CURRENT)
    name = current.get("version") if isinstance(current, dict) else None
    if not isinstance(name, str) or not (DEPLOYED / name / MANIFEST).is_file():
        raise UserError(f"{CURRENT}: the version is {name!r}; expected the name of a folder in {DEPLOYED} with a {MANIFEST}")
    return name


def read_version(name: str) -> Version:
    """A deployed version; raises UserError when a file is missing or is not what it was when the version was deployed."""
    return version_in(DEPLOYED / name, pinned(name))


def version_in(folder: Path, pin: str | None) -> Version:
    """The version in a folder; raises UserError unless its manifest has the sha256 of the pin, and the files those it names."""
    path = folder / MANIFEST
    manifest, sha256 = read_manifest(path, pin)
    try:
        files, labels = dict(manifest["files"]), [str(label) for label in manifest["labels"]]
        priors = {key: prior_of(manifest[key], labels, f"{path}: {key}") for key in ("effective_prior", "production_prior")}
        costs = cost_matrix(manifest["operating_point"]["costs"], labels)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the manifest of a deployed version ({type(error).__name__}: {error})") from error
    check_files(folder, files)
    return Version(name=folder.name, folder=folder, manifest=manifest, sha256=sha256, labels=labels, costs=costs, **priors)


def read_manifest(path: Path, pin: str | None) -> tuple[dict[str, Any], str]:
    """A version's manifest and its sha256; raises UserError unless that is the pin or, without one, its own digest is right."""
    regular_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if pin is None:
        return read_json(path), sha256
    if sha256 != pin:
        raise spoilt(path, f"its sha256 is {sha256}, {CURRENT} says {pin}")
    manifest = json.loads(content)
    # A version of before manifests carried a digest has only the pin.
    manifest.pop(digest.KEY, None)
    return manifest, sha256


def prior_of(shares: Mapping[str, float], labels: list[str], where: str) -> np.ndarray:
    """A class prior (K,) in the order of the labels; raises UserError that says where a label is unknown or missing."""
    check_all_labels(where, shares, labels)
    return np.array([shares[label] for label in labels], dtype=np.float64)


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise UserError for a file (relative name: sha256) that is missing or different."""
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, but {folder / MANIFEST} names it; {remedy(file)}")
        if (found := file_sha256(file)) != expected:
            raise UserError(f"{file}: sha256 is {found}, {folder / MANIFEST} says {expected}; {remedy(file)}")
