"""A deployed model: its files, checked against their digests, and the probabilities and decisions that it gives.

A folder of versions (`production/deployed`) holds `current.json`, which names the deployed version and pins the sha256 of its
manifest, and one folder per version. A version holds `manifest.json` (labels, priors, calibration, operating point, and the
sha256 of every other file) and the folder `model/`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

import ballast.io.digest as digest
from ballast.evaluation.costs import cost_matrix, decide
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.review import ReviewBand, review_from_json, review_mask
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import real_folder, regular_file
from ballast.labels import check_all_labels
from ballast.models.base import Model, check_texts
from ballast.models.folder import load

POINTER = "current.json"
MANIFEST = "manifest.json"
MODEL = "model"
DEPLOY_AGAIN = "deploy the model again"


class VersionFileError(UserError):
    """A file of a deployed version is missing or differs from what was deployed.

    path : the file.
    reason : what is wrong with it; None if it is missing.
    """

    def __init__(self, path: Path, reason: object = None) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {'no such file' if reason is None else reason}; {DEPLOY_AGAIN}")


@dataclass(frozen=True, kw_only=True)
class Version:
    """A deployed version, with its files checked.

    name : of the version, such as `0001`; folder : where its files are.
    manifest : the content of its manifest; sha256 : of the manifest's bytes.
    effective_prior, production_prior : (K,) in the order of the labels.
    costs : (K, K), costs[true, predicted] of the operating point.
    review : the messages that people decide; None for no message.
    """

    name: str
    folder: Path
    manifest: dict[str, Any]
    sha256: str
    labels: list[str]
    effective_prior: np.ndarray
    production_prior: np.ndarray
    costs: np.ndarray
    review: ReviewBand | None = None

    def load(self) -> Model:
        """Load the model; raises UserError if a file differs from its sha256."""
        model = load(self.folder / MODEL)
        if model.labels != self.labels:
            raise UserError(
                f"{self.folder / MANIFEST}: the labels are {', '.join(self.labels)}, but the model has the labels"
                f" {', '.join(model.labels)}; {DEPLOY_AGAIN}"
            )
        return model

    def corrected(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, K) float64 on the production prior, from the model's own logits (n, K)."""
        return correct_prior(logits.astype(np.float64), self.effective_prior, self.production_prior)

    def posteriors(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) float64 on the production prior, from the model's own logits (n, K)."""
        return np.asarray(softmax(self.corrected(logits), axis=1))

    def decisions(self, posteriors: np.ndarray) -> np.ndarray:
        """Class indices (n,) of least expected cost at the operating point, from posteriors (n, K)."""
        return decide(posteriors, self.costs)

    def reviewed(self, posteriors: np.ndarray) -> np.ndarray:
        """Whether people decide each message (n,), from posteriors (n, K)."""
        return review_mask(posteriors, self.costs, self.review)

    def score(self, model: Model, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (n, K) and class indices (n,) of texts (n,); repeated texts are scored once.

        Raises UserError if a probability is not a number.
        """
        rows, unique = pd.factorize(np.array(texts, dtype=object))
        posteriors = self.posteriors(model.logits(list(unique)))
        if not np.isfinite(posteriors).all():
            raise UserError(f"{self.folder}: the model gives probabilities that are not finite; deploy another version")
        return posteriors[rows], self.decisions(posteriors)[rows]


@dataclass(frozen=True)
class DeployedModel:
    """A deployed model as a fitted scikit-learn classifier: production prior and operating point are applied.

    `predict_proba` and `predict` give what the pipeline writes to `production/scored/`, to the last bit.
    """

    version: Version
    model: Model

    @property
    def labels(self) -> list[str]:
        """The K class names, in the order of the columns of `predict_proba`."""
        return self.version.labels

    @property
    def classes_(self) -> np.ndarray:
        """The labels (K,) as an array, as scikit-learn names them."""
        return np.array(self.labels)

    def logits(self, texts: Iterable[str]) -> np.ndarray:
        """Logits (n, K) float64 of texts (n,) on the production prior."""
        return self.version.corrected(self.model.logits(check_texts(texts)))

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Probabilities (n, K) float64 of texts (n,) on the production prior; each row sums to 1.

        Raises UserError for a single string and for an item that is not a string.
        """
        return self.version.score(self.model, check_texts(texts))[0]

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """The label (n,) of each of texts (n,) at the operating point, which need not be the most probable one.

        Raises UserError for a single string and for an item that is not a string.
        """
        return self.classes_[self.version.score(self.model, check_texts(texts))[1]]

    def review(self, texts: Iterable[str]) -> np.ndarray:
        """Whether people decide each of texts (n,), because no decision is clear enough; false without a review band.

        Raises UserError for a single string and for an item that is not a string.
        """
        return self.version.reviewed(self.predict_proba(texts))


def read_pointer(path: Path) -> tuple[str, list[dict[str, str]]]:
    """The name of the deployed version and every switch between versions, the oldest first, from `current.json`.

    Raises VersionFileError if the file is missing, damaged or names no version of its folder.
    """
    current = read_object(path)
    history, name = history_of(path, current), current.get("version")
    if not isinstance(name, str) or not (path.parent / name / MANIFEST).is_file():
        raise UserError(f"{path}: the version is {name!r}; expected the name of a folder in {path.parent} with a {MANIFEST}")
    return name, history


def history_of(path: Path, current: Mapping[str, Any]) -> list[dict[str, str]]:
    """The switches in the content of `current.json` at a path; raises VersionFileError if they are malformed."""
    try:
        return [dict(entry) for entry in current["history"]]
    except (KeyError, TypeError, ValueError) as error:
        raise VersionFileError(path, "has no history of versions") from error


def pin_of(name: str, history: Iterable[Mapping[str, str]]) -> str | None:
    """The sha256 that the manifest of a version had when it was deployed; None if it never was."""
    return next((entry.get("sha256") for entry in history if entry["version"] == name), None)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object without its own digest; raises VersionFileError if it is missing or damaged."""
    regular_file(path)
    try:
        return digest.parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise VersionFileError(path) from error
    except digest.DigestError as error:
        raise VersionFileError(path, error) from error
    except ValueError as error:
        raise VersionFileError(path, f"not valid JSON ({error})") from error


def read_version(folder: Path, pin: str | None) -> Version:
    """The version in a folder, with all its files checked.

    Parameters
    ----------
    folder : of the version.
    pin : the sha256 of its manifest; None to check the digest that the manifest carries.

    Raises VersionFileError if a file is missing or differs from its sha256, and UserError if the manifest is malformed.
    """
    path = folder / MANIFEST
    manifest, sha256 = read_manifest(path, pin)
    if "kind" in manifest:
        raise UserError(f"{folder}: a trained model, not a deployed version; use ballast.load")
    try:
        files, labels = dict(manifest["files"]), [str(label) for label in manifest["labels"]]
        priors = {key: prior_of(manifest[key], labels, f"{path}: {key}") for key in ("effective_prior", "production_prior")}
        costs = manifest_costs(manifest["operating_point"]["costs"], labels, f"{path}: operating_point.costs")
        review = review_from_json(manifest["operating_point"].get("review"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the manifest of a deployed version ({type(error).__name__}: {error})") from error
    check_files(folder, files)
    return Version(
        name=folder.name,
        folder=folder,
        manifest=manifest,
        sha256=sha256,
        labels=labels,
        effective_prior=priors["effective_prior"],
        production_prior=priors["production_prior"],
        costs=costs,
        review=review,
    )


def read_manifest(path: Path, pin: str | None) -> tuple[dict[str, Any], str]:
    """A version's manifest and its sha256.

    Raises VersionFileError unless the sha256 is the pin or, without a pin, the digest that the manifest carries is right.
    """
    if pin is None:
        return read_object(path), file_sha256(path)
    regular_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise VersionFileError(path) from error
    if (sha256 := hashlib.sha256(content).hexdigest()) != pin:
        raise VersionFileError(path, f"its sha256 is {sha256}, {path.parent.parent / POINTER} says {pin}")
    manifest = json.loads(content)
    # Manifests of earlier releases carry no digest of their own; the pin proves them.
    manifest.pop(digest.KEY, None)
    return manifest, sha256


def prior_of(shares: Mapping[str, float], labels: list[str], where: str) -> np.ndarray:
    """A class prior (K,) in the order of the labels; raises UserError, which begins with `where`, for a wrong label."""
    check_all_labels(where, shares, labels)
    return np.array([shares[label] for label in labels], dtype=np.float64)


def manifest_costs(costs: Mapping[str, Mapping[str, float]], labels: list[str], where: str) -> np.ndarray:
    """Costs (K, K) in the order of the labels; raises UserError, which begins with `where`, for a wrong label or no cost."""
    try:
        return cost_matrix(costs, labels)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise VersionFileError for a file (relative name: sha256) of a version that is missing or different."""
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise VersionFileError(file, f"missing, but {folder / MANIFEST} names it")
        if (actual := file_sha256(file)) != expected:
            raise VersionFileError(file, f"sha256 is {actual}, {folder / MANIFEST} says {expected}")


def is_version(folder: Path) -> bool:
    """Whether the manifest of a folder is that of a deployed version."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes()) if regular_file(path) else {}
    except ValueError:
        return False
    return isinstance(manifest, dict) and "production_prior" in manifest


def load_trained(folder: str | os.PathLike[str]) -> Model:
    """Load a trained model; see `ballast.load`. Raises UserError for a deployed version and for a folder of versions."""
    folder = Path(folder)
    if real_folder(folder):
        for kind, present in (
            ("a folder of versions", (folder / POINTER).is_file()),
            ("a deployed version", is_version(folder)),
        ):
            if present:
                raise UserError(f"{folder}: {kind}, not a trained model; use ballast.load_deployed")
    return load(folder)


def load_deployed(folder: str | os.PathLike[str]) -> DeployedModel:
    """Load the deployed version of a folder of versions, or the version in a folder; see `ballast.load_deployed`."""
    folder = Path(folder)
    if not real_folder(folder):
        raise UserError(f"{folder}: no such folder; expected production/deployed or one of its versions")
    # Resolved, so that a link to a version is checked against the pin beside the version itself.
    folder = folder.resolve()
    if regular_file(folder / POINTER):
        name, history = read_pointer(folder / POINTER)
        version = read_version(folder / name, pin_of(name, history))
    elif regular_file(folder / MANIFEST):
        pointer = folder.parent / POINTER
        history = history_of(pointer, read_object(pointer)) if regular_file(pointer) else []
        version = read_version(folder, pin_of(folder.name, history))
    else:
        raise UserError(
            f"{folder}: holds neither {POINTER} nor {MANIFEST}; expected production/deployed or one of its versions,"
            " such as production/deployed/0001"
        )
    return DeployedModel(version, version.load())
