"""Trained models as folders: weights, configuration, and a manifest with digests of the files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ballast.io.digest as digest
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import regular_file
from ballast.models.base import Model
from ballast.models.ensemble import EnsembleModel
from ballast.models.prior import PriorModel

MANIFEST = "manifest.json"


def class_of(kind: str) -> type[Model]:
    """The class of a kind of model. Imports only the libraries of that kind."""
    if kind == "encoder":
        from ballast.models.encoder import EncoderModel

        return EncoderModel
    if kind == "tfidf":
        from ballast.models.tfidf import TfidfModel

        return TfidfModel
    if kind in ("embedding", "one_class"):
        from ballast.models.embedding import EmbeddingModel, OneClassModel

        return EmbeddingModel if kind == "embedding" else OneClassModel
    if kind == "prior":
        return PriorModel
    if kind == "ensemble":
        return EnsembleModel
    raise UserError(f"unknown kind of model {kind!r}; known: encoder, tfidf, embedding, one_class, prior, ensemble")


def save(model: Model, folder: Path, details: dict[str, object]) -> None:
    """Write a model and its manifest (kind, labels, parameters, sha256 of each file, `details`) into an empty folder."""
    model.save_files(folder)
    write_manifest(model, folder, details)


def write_manifest(model: Model, folder: Path, details: dict[str, object]) -> None:
    """Write the manifest of a model whose files are in a folder."""
    files = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = {**details, "kind": model.kind, "labels": model.labels, "parameters": model.n_parameters, "files": files}
    content = json.dumps(digest.with_digest(manifest), indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of a model folder. Raises UserError if there is none or a file differs from its sha256."""
    path = folder / MANIFEST
    regular_file(path)
    try:
        manifest: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        # Models saved by older versions have no digest of the manifest.
        if digest.KEY in manifest:
            manifest = digest.without_digest(manifest)
        files = dict(manifest["files"])  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected the manifest of a model folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the manifest of a model ({error})") from error
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, but listed in the manifest")
        if (actual := file_sha256(file)) != expected:
            raise UserError(f"{file}: sha256 is {actual}, but the manifest expects {expected}; restore or retrain the model")
    return manifest


def load(folder: str | os.PathLike[str]) -> Model:
    """Load a trained model; see `ballast.load`."""
    manifest = read_manifest(Path(folder))
    labels = [str(label) for label in manifest["labels"]]  # type: ignore[attr-defined]
    return class_of(str(manifest["kind"])).load_files(Path(folder), labels)
