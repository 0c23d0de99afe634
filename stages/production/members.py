"""The trainings that a selection deploys: one model, or the members of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ballast.io.digest import file_sha256
from ballast.models.ensemble import LISTING, MEMBERS, EnsembleModel, mean_logits, write_listing
from ballast.models.folder import read_manifest, write_manifest
from stages.production.deployed import MANIFEST, MODEL
from stages.store.checked import of_model
from stages.store.files import copied
from stages.store.logits import Training


def members_of(pointer: Mapping[str, Any]) -> dict[int, str]:
    """The folder of each deployed seed, from the content of `selected/model.json`."""
    if "seeds" in pointer:
        return dict(zip(map(int, pointer["seeds"]), map(str, pointer["folders"]), strict=True))
    return {int(pointer["seed"]): str(pointer["folder"])}


def trainings_of(pointer: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a selection that says which trainings are deployed: {seed}, or {seeds} of an ensemble."""
    return {key: pointer[key] for key in ("seed", "seeds") if key in pointer}


def test_logits(pointer: Mapping[str, Any], trainings: Mapping[int, Training]) -> np.ndarray:
    """Test logits (n, K) of the deployed model: of the seed, or the mean over the members."""
    return mean_logits([trainings[seed].scores.test for seed in members_of(pointer)])


def read_manifests(pointer: Mapping[str, Any], source: Path) -> dict[int, dict[str, Any]]:
    """The manifest of each deployed training in a checkout; raises UserError if a file differs from it."""
    manifests = {}
    for seed, folder in members_of(pointer).items():
        with of_model(source / folder):
            manifests[seed] = dict(read_manifest(source / folder))
    return manifests


def copied_or_linked(path: Path, target: Path, same: Path) -> None:
    """Copy a file, or link the target to a copy with the same content where the file system can."""
    if same != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            target.hardlink_to(same)
            return
    copied(path, target)


def copy_models(
    pointer: Mapping[str, Any], manifests: Mapping[int, Mapping[str, Any]], source: Path, folder: Path
) -> dict[str, str]:
    """Copy the files of the deployed trainings into a version's folder; returns their sha256 by relative name.

    Several become the members of an ensemble, in which layers with equal weights run once.
    """
    files: dict[str, str] = {}
    by_content: dict[str, Path] = {}
    for seed, origin in members_of(pointer).items():
        place = f"{MODEL}/{MEMBERS}/{seed}" if "seeds" in pointer else MODEL
        of_member = {name: str(sha256) for name, sha256 in dict(manifests[seed]["files"]).items()}
        of_member[MANIFEST] = file_sha256(source / origin / MANIFEST)
        for name, sha256 in of_member.items():
            # Members share the file of their frozen layers, on disk too.
            copied_or_linked(
                source / origin / name, folder / place / name, by_content.setdefault(sha256, folder / place / name)
            )
        files |= {f"{place}/{name}": sha256 for name, sha256 in of_member.items()}
    if "seeds" in pointer:
        model = folder / MODEL
        write_listing(model, [str(seed) for seed in members_of(pointer)])
        ensemble = EnsembleModel.load_files(model, pointer["labels"])
        write_manifest(ensemble, model, {"technique": pointer["technique"], "seeds": list(pointer["seeds"])})
        files |= {f"{MODEL}/{name}": file_sha256(model / name) for name in (LISTING, MANIFEST)}
    return files
