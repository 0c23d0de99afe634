"""Trained models: what they share, and how a folder becomes one again. Weights are safetensors; nothing is unpickled."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from ballast.encoders import file_sha256
from ballast.errors import UserError

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"


class Model(ABC):
    """A classifier of texts into K classes."""

    kind: ClassVar[str]
    labels: list[str]

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (n, K) float32 of texts (n,), in their order."""

    @abstractmethod
    def save_files(self, folder: Path) -> None:
        """Write weights and configuration into an existing folder."""

    @classmethod
    @abstractmethod
    def load_files(cls, folder: Path, labels: list[str]) -> Model:
        """Read what `save_files` wrote."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of weights: what the model costs to keep and to run."""


@dataclass
class PriorModel(Model):
    """Gives every message the same logits, the log of a class prior (K,)."""

    kind: ClassVar[str] = "prior"
    labels: list[str]
    log_prior: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(self.log_prior.astype(np.float32), (len(texts), 1))

    def save_files(self, folder: Path) -> None:
        save_file({"log_prior": self.log_prior}, folder / WEIGHTS)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> PriorModel:
        return cls(labels=labels, log_prior=load_file(folder / WEIGHTS)["log_prior"])

    @property
    def parameters(self) -> int:
        return len(self.log_prior)


def class_of(kind: str) -> type[Model]:
    """The class of a kind of model; only that kind's libraries are imported."""
    if kind == "encoder":
        from ballast.encoder_model import EncoderModel

        return EncoderModel
    if kind == "tfidf":
        from ballast.tfidf_model import TfidfModel

        return TfidfModel
    if kind == "prior":
        return PriorModel
    raise UserError(f"unknown kind of model {kind!r}; known: encoder, tfidf, prior")


def save(model: Model, folder: Path, details: dict[str, object]) -> None:
    """Write a model and its manifest (kind, labels, parameters, sha256 of each file, `details`) into an empty folder."""
    model.save_files(folder)
    files = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = {**details, "kind": model.kind, "labels": model.labels, "parameters": model.parameters, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of a model's folder; raises UserError when there is none or a file differs from its sha256."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; a model's folder holds its manifest") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a model's manifest ({error})") from error
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, but the manifest names it")
        if (found := file_sha256(file)) != expected:
            raise UserError(f"{file}: sha256 is {found}, the manifest says {expected}; restore or retrain the model")
    return manifest


def load(folder: str | os.PathLike[str]) -> Model:
    """Load a trained model; see `ballast.load`."""
    manifest = read_manifest(Path(folder))
    labels = [str(label) for label in manifest["labels"]]  # type: ignore[attr-defined]
    return class_of(str(manifest["kind"])).load_files(Path(folder), labels)
