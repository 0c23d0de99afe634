"""Create a version of the selected model: its weights, the reference for windows, and its lineage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors.numpy import save_file
from scipy.special import softmax

from ballast.data.descriptors import vocabulary
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import real_folder, regular_file
from ballast.io.urls import public_text, secrets_in
from ballast.models.folder import load
from stages.production.checkouts import run_git
from stages.production.deployed import MODEL, REFERENCE, VOCABULARY, check_files
from stages.production.members import copy_models, members_of, read_manifests, test_logits, trainings_of
from stages.production.reference import reference_table
from stages.production.versions import Manifest
from stages.store.checked import read_pinned, read_table, write_table
from stages.store.files import as_new, copied, read_json
from stages.store.groups import fingerprints_of
from stages.store.ingested import prior_counts
from stages.store.logits import Training, read_trainings
from stages.store.messages import Messages
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.protocol import production_prior
from stages.store.section import read_yaml
from stages.store.units import read_with_units

# A training takes about 3 kB.
LARGEST_LOCK_BYTES = 1 << 25
# The copied model scores this many held-out messages again; rounding on another machine changes probabilities far less.
SCORED_AGAIN, TOLERANCE = 32, 0.05


def make_candidate(source: Path, folder: Path) -> Manifest:
    """Copy the selected model of a checkout, and what belongs to it, into an empty folder.

    Returns the manifest without the occasion. Raises UserError if a file is missing, has changed, or is of another run.
    """
    if not real_folder(source):
        raise UserError(f"{source}: no such folder; expected a checkout with a selected model")
    project = Project(source)
    pointer, calibration, point = (
        read_json(project.selected / f"{name}.json") for name in ("model", "calibration", "operating_point")
    )
    name, labels, deployed = pointer["technique"], pointer["labels"], members_of(pointer)
    if not project.messages.exists():
        raise UserError(f"{project.messages}: no such file; run `dvc repro`")
    messages = read_with_units(["text"], project)
    manifests = read_manifests(pointer, source)
    check_current(pointer, calibration, point, messages, manifests, project)
    lock = locked_stages(project.lock) if regular_file(project.lock) else {}
    evaluated = read_json(project.evaluations / f"{name}.json")
    seeds = sorted(map(int, evaluated["seeds"]))
    check_lock(lock, name, seeds, project)
    trainings = read_trainings(name, seeds, messages, project)
    test = test_logits(pointer, trainings)

    files = copy_models(pointer, manifests, source, folder) | write_beside(pointer, messages, trainings, folder, project)
    as_new(folder)
    check_files(folder, files)
    check_model(folder / MODEL, messages.test()["text"].tolist()[:SCORED_AGAIN], test[:SCORED_AGAIN], project)
    return {
        "technique": name,
        **trainings_of(pointer),
        "labels": labels,
        "declared_prior": evaluated["fitted"]["declared_prior"],
        "effective_prior": pointer["effective_prior"],
        "production_prior": pointer["production_prior"],
        "calibration": calibration,
        "operating_point": point,
        "lineage": lineage(lock, name, deployed, project),
        "files": files,
    }


def write_beside(
    pointer: Mapping[str, Any], messages: Messages, trainings: Mapping[int, Training], folder: Path, project: Project
) -> dict[str, str]:
    """Write what belongs to a model into a version's folder; returns the sha256 of each file by its name.

    That is the model card, the settings and lock, the vocabulary, and the held-out messages that windows are compared with.
    """
    card = project.model_card
    read_pinned(card, pointer["files"][PROJECT.model_card.as_posix()])
    copied(card, folder / card.name)
    names = [card.name, VOCABULARY, REFERENCE]
    for path in (project.params, *([project.lock] if regular_file(project.lock) else [])):
        copy_public(path, folder / path.name)
        names.append(path.name)
    trained_on = pd.concat([messages.train(seed) for seed in members_of(pointer)])
    words = vocabulary(trained_on[~trained_on.index.duplicated()]["text"].tolist())
    texts = pa.chunked_array([], pa.string())
    if project.feedback.exists():
        texts = read_table(project.feedback, ["text"], required=False)["text"]
    save_file({"words": words, "feedback": np.sort(fingerprints_of(texts))}, folder / VOCABULARY)
    ensemble = test_logits(pointer, trainings) if "seeds" in pointer else None
    write_table(folder / REFERENCE, reference_table(messages, trainings, words, ensemble))
    return {name: file_sha256(folder / name) for name in names}


def locked_stages(lock: Path) -> dict[str, Any]:
    """The stages of a dvc.lock by name; raises UserError."""
    stages: Any = read_yaml(lock, LARGEST_LOCK_BYTES).get("stages")
    try:
        files = [file for entry in stages.values() for kind in ("deps", "outs") for file in entry.get(kind, [])]
        digests = [output["md5"] for entry in stages.values() for output in entry.get("outs", [])]
        if not all(isinstance(value, str) for value in (*(file["path"] for file in files), *digests)):
            raise TypeError
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{lock}: not a valid lock file of DVC; restore it with `git checkout {lock}`, then run `dvc repro`"
        ) from error
    return dict(stages)


def check_current(
    pointer: Mapping[str, Any],
    calibration: Mapping[str, Any],
    point: Mapping[str, Any],
    messages: Messages,
    manifests: Mapping[int, Mapping[str, Any]],
    project: Project,
) -> None:
    """Raise UserError unless the selection belongs to the messages, settings, evaluation and model of its project."""
    pointed, path = project.selected / "model.json", project.evaluations / f"{pointer['technique']}.json"
    counts = prior_counts(read_json(project.ingest))
    for where, labels in (
        (project.messages, messages.names),
        (project.ingest, list(counts)),
        *((folder, manifests[seed]["labels"]) for seed, folder in members_of(pointer).items()),
    ):
        if list(labels) != pointer["labels"]:
            ours, theirs = ", ".join(pointer["labels"]), ", ".join(labels)
            raise UserError(f"{pointed}: its labels are {ours}, those of {where} {theirs}; run `dvc repro`")
    evaluated = read_json(path)
    fitted = evaluated["fitted"]
    if (
        not set(map(str, members_of(pointer))) <= set(evaluated["seeds"])
        or fitted["calibration"] != calibration
        or fitted["effective_prior"] != pointer["effective_prior"]
        or not fitted["operating_point"].items() <= point.items()
    ):
        raise stale(pointed, path)
    expected = production_prior(read_params(project.params).production.prior, counts, project.params)
    if not np.allclose(expected, [pointer["production_prior"][label] for label in pointer["labels"]], rtol=0, atol=1e-9):
        raise UserError(f"{pointed}: its class prior differs from production.prior in {project.params}; run `dvc repro`")


def check_lock(lock: Mapping[str, Any], name: str, seeds: Iterable[int], project: Project) -> None:
    """Raise UserError for a file that has changed since the models were trained or one was selected, by DVC's lock."""
    of_trainings = [
        (f"train@{name}-{seed}", kind, path, "the model")
        for seed in seeds
        for kind, path in (("deps", project.messages), ("outs", project.logits / name / f"{seed}.npz"))
    ]
    for stage, kind, path, user in (*of_trainings, ("select", "deps", project.leaderboard, "the selection")):
        expected = locked_md5(lock, stage, kind, path.relative_to(project.root))
        if expected is not None and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != expected:
            raise UserError(f"{path}: differs from the file that {project.lock} names for {user}; run `dvc repro`")


def locked_md5(lock: Mapping[str, Any], stage: str, kind: str, path: Path) -> str | None:
    """The MD5 of a stage's dependency or output in DVC's lock; None if the lock does not name it."""
    entries = lock.get(stage, {}).get(kind, [])
    return next((entry.get("md5") for entry in entries if entry["path"] == path.as_posix()), None)


def check_model(folder: Path, texts: list[str], expected: np.ndarray, project: Project) -> None:
    """Raise UserError unless a model's probabilities of texts (n,) are those of the saved logits (n, K)."""
    probabilities = softmax(load(folder).logits(texts).astype(np.float64), axis=1)
    if np.abs(probabilities - softmax(expected.astype(np.float64), axis=1)).mean() > TOLERANCE:
        raise UserError(
            f"the model does not give the messages of {project.messages} the logits in {project.logits}/; run `dvc repro`"
        )


def stale(path: Path, other: Path) -> UserError:
    """The error of two files of different runs."""
    return UserError(f"{path}: comes from another run than {other}; run `dvc repro`")


def copy_public(path: Path, target: Path) -> None:
    """Copy a YAML file without the secrets in URLs; raises UserError if a secret would remain."""
    target.write_text(public_text(path.read_text(encoding="utf-8")), encoding="utf-8")
    for key in secrets_in(read_yaml(target, LARGEST_LOCK_BYTES), skip="probe"):
        raise UserError(f"{path}: {key} holds a URL with user info, a query or a fragment; write it on one line, unescaped")


def lineage(lock: Mapping[str, Any], name: str, deployed: Mapping[int, str], project: Project) -> dict[str, Any]:
    """What a version was made from: the commit, the files that differ from it, and the sha256 of its inputs.

    deployed : the path of each deployed model's folder within the project, by seed.
    """
    status = git_output(project, "--no-optional-locks", "status", "--porcelain", "--", PROJECT.params, PROJECT.lock)
    # The name of each folder in DVC's cache and remotes.
    models = [
        {"path": model, "md5": locked_md5(lock, f"train@{name}-{seed}", "outs", Path(model))}
        for seed, model in deployed.items()
    ]
    return {
        "commit": git_output(project, "rev-parse", "HEAD"),
        "modified": sorted(line.split()[-1] for line in (status or "").splitlines()),
        "dvc_lock": file_sha256(project.lock) if project.lock.exists() else None,
        "params": file_sha256(project.params),
        "messages": file_sha256(project.messages),
        **({"model": models[0]} if len(models) == 1 else {"models": models}),
    }


def git_output(project: Project, *arguments: str | Path) -> str | None:
    """The output of a git command in a project; None without git, or without a commit."""
    try:
        return run_git(*arguments, folder=project.root)
    except (OSError, UserError):
        return None
