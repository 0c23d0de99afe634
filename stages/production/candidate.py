"""Make a version of the selected model: its weights, what windows are compared with, and where it all came from."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors.numpy import save_file
from scipy.special import softmax

from ballast.data.descriptors import descriptors, vocabulary
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import real_folder, regular_file
from ballast.io.urls import public_text, secrets_in
from ballast.models.folder import load, read_manifest
from stages.production.deployed import MANIFEST, MODEL, REFERENCE, VOCABULARY, check_files
from stages.production.versions import Manifest
from stages.store.checked import of_model, read_pinned, read_table, write_table
from stages.store.files import as_new, read_json
from stages.store.groups import fingerprints_of, groups_of
from stages.store.logits import seed_scores
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params, read_yaml
from stages.store.project import PROJECT
from stages.store.protocol import production_prior

# Some 3 kB for each training.
LARGEST_LOCK_BYTES = 1 << 25
# So many held-out messages are scored again by the copied model; another machine's rounding moves a probability far less.
SCORED_AGAIN, TOLERANCE = 32, 0.05


def of_source(source: Path, folder: Path) -> Manifest:
    """Put the selected model of a checkout into an empty folder, with what belongs to it; its manifest but for the occasion.

    Raises UserError when anything is missing, is not what its manifest says, or is not of the same run.
    """
    folder = folder.resolve()
    if not real_folder(source):
        raise UserError(f"{source}: no such folder; expected a checkout with a selected model")
    try:
        with contextlib.chdir(source):
            return of_selected(folder)
    except UserError as error:
        raise error if source == Path() else UserError(f"{source}: {error}") from error


def of_selected(folder: Path) -> Manifest:
    """The same for this checkout."""
    pointer, calibration, point = (
        read_json(PROJECT.selected / f"{name}.json") for name in ("model", "calibration", "operating_point")
    )
    name, seed, labels, origin = pointer["technique"], int(pointer["seed"]), pointer["labels"], Path(pointer["folder"])
    if not PROJECT.messages.exists():
        raise UserError(f"{PROJECT.messages}: no such file; run `dvc repro`")
    messages = read_messages(["text"])
    with of_model(origin):
        manifest = read_manifest(origin)
    check_current(pointer, calibration, point, messages, manifest)
    lock = locked_stages() if regular_file(PROJECT.lock) else {}
    check_lock(lock, name, seed)
    scores, _ = seed_scores(name, seed)
    for split, logits in (("validation", scores.validation), ("test", scores.test)):
        if logits.shape != (len(messages.of(split)), len(labels)):
            raise stale(PROJECT.logits / name / f"{seed}.npz", PROJECT.messages)

    files = {f"{MODEL}/{file}": str(sha256) for file, sha256 in dict(manifest["files"]).items()}  # type: ignore[call-overload]
    files[f"{MODEL}/{MANIFEST}"] = file_sha256(origin / MANIFEST)
    for each in files:
        copy(origin / Path(each).relative_to(MODEL), folder / each)
    read_pinned(PROJECT.model_card, pointer["files"][PROJECT.model_card.as_posix()])
    copy(PROJECT.model_card, folder / PROJECT.model_card.name)
    for path in (PROJECT.params, *([PROJECT.lock] if regular_file(PROJECT.lock) else [])):
        copy_public(path, folder / path.name)
    words = vocabulary(messages.of("train")["text"].tolist())
    fed = (
        read_table(PROJECT.feedback, ["text"], required=False)["text"]
        if PROJECT.feedback.exists()
        else pa.chunked_array([], pa.string())
    )
    save_file({"words": words, "feedback": np.sort(fingerprints_of(fed))}, folder / VOCABULARY)
    held_out = pd.concat([messages.of("validation"), messages.of("test")])
    write_table(folder / REFERENCE, reference(held_out, labels, np.concatenate([scores.validation, scores.test]), words))
    made = [
        each
        for each in (PROJECT.model_card.name, PROJECT.params.name, PROJECT.lock.name, VOCABULARY, REFERENCE)
        if (folder / each).exists()
    ]
    files |= {each: file_sha256(folder / each) for each in made}
    as_new(folder)
    check_files(folder, files)
    check_model(folder / MODEL, messages.of("test")["text"].tolist()[:SCORED_AGAIN], scores.test[:SCORED_AGAIN])
    return {
        "technique": name,
        "seed": seed,
        "labels": labels,
        "effective_prior": pointer["effective_prior"],
        "production_prior": pointer["production_prior"],
        "calibration": calibration,
        "operating_point": point,
        "lineage": lineage(lock, origin, f"train@{name}-{seed}"),
        "files": files,
    }


def locked_stages(lock: Path = PROJECT.lock) -> dict[str, Any]:
    """What a dvc.lock says of each stage; raises UserError."""
    stages: Any = read_yaml(lock, LARGEST_LOCK_BYTES).get("stages")
    try:
        paths = [each["path"] for entry in stages.values() for kind in ("deps", "outs") for each in entry.get(kind, [])]
        digests = [each["md5"] for entry in stages.values() for each in entry.get("outs", [])]
        if not all(isinstance(each, str) for each in (*paths, *digests)):
            raise TypeError
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{lock}: not as DVC writes it; restore it with `git checkout {lock}`, then run `dvc repro`") from error
    return dict(stages)


def check_current(
    pointer: Mapping[str, Any],
    calibration: Mapping[str, Any],
    point: Mapping[str, Any],
    messages: Messages,
    manifest: Mapping[str, Any],
) -> None:
    """Raise UserError unless what is selected is of the messages, settings, evaluation and model that are here."""
    pointed, path = PROJECT.selected / "model.json", PROJECT.evaluations / f"{pointer['technique']}.json"
    counts = read_json(PROJECT.ingest)["labels"]
    for where, labels in (
        (PROJECT.messages, messages.names),
        (PROJECT.ingest, list(counts)),
        (pointer["folder"], manifest["labels"]),
    ):
        if list(labels) != pointer["labels"]:
            ours, theirs = ", ".join(pointer["labels"]), ", ".join(labels)
            raise UserError(f"{pointed}: its labels are {ours}, those of {where} {theirs}; run `dvc repro`")
    evaluated = read_json(path)["seeds"].get(str(pointer["seed"]))
    chosen = {key: value for key, value in point.items() if key in ("rule", "label", "limit", "met", "costs", "validation")}
    if (
        evaluated is None
        or evaluated["calibration"] != calibration
        or evaluated["effective_prior"] != pointer["effective_prior"]
        or not chosen.items() <= evaluated["operating_point"].items()
    ):
        raise stale(pointed, path)
    expected = production_prior(read_params().production.prior, counts)
    if not np.allclose(expected, [pointer["production_prior"][label] for label in pointer["labels"]], rtol=0, atol=1e-9):
        raise UserError(f"{pointed}: is for another class prior than production.prior of {PROJECT.params}; run `dvc repro`")


def check_lock(lock: Mapping[str, Any], name: str, seed: int) -> None:
    """Raise UserError when a file is not the one that DVC's lock says the model was trained, or selected, from."""
    for stage, kind, path, of in (
        (f"train@{name}-{seed}", "deps", PROJECT.messages, "the model"),
        (f"train@{name}-{seed}", "outs", PROJECT.logits / name / f"{seed}.npz", "the model"),
        ("select", "deps", PROJECT.leaderboard, "the selection"),
    ):
        expected = locked_md5(lock, stage, kind, path)
        if expected is not None and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != expected:
            raise UserError(f"{path}: is not the one that {PROJECT.lock} says {of} is of; run `dvc repro`")


def locked_md5(lock: Mapping[str, Any], stage: str, kind: str, path: Path) -> str | None:
    """The md5 that DVC's lock has of a stage's dependency or output; None where it has none."""
    entries = lock.get(stage, {}).get(kind, [])
    return next((entry.get("md5") for entry in entries if entry["path"] == path.as_posix()), None)


def check_model(folder: Path, texts: list[str], expected: np.ndarray) -> None:
    """Raise UserError unless a model gives texts (n,) the probabilities of their saved logits (n, K)."""
    found = softmax(load(folder).logits(texts).astype(np.float64), axis=1)
    if np.abs(found - softmax(expected.astype(np.float64), axis=1)).mean() > TOLERANCE:
        raise UserError(
            f"the model does not give the messages of {PROJECT.messages} the logits in {PROJECT.logits}/; run `dvc repro`"
        )


def stale(path: Path, other: Path) -> UserError:
    return UserError(f"{path}: is not of the same run as {other}; run `dvc repro`")


def copy(path: Path, target: Path) -> None:
    """Copy a file's bytes, into folders that need not exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def copy_public(path: Path, target: Path) -> None:
    """Copy a YAML file without the secrets of URLs; raises UserError where one would be left."""
    target.write_text(public_text(path.read_text(encoding="utf-8")), encoding="utf-8")
    for key in secrets_in(read_yaml(target, LARGEST_LOCK_BYTES), skip="probe"):
        raise UserError(f"{path}: {key} holds a URL with user info, a query or a fragment; write it on one line, unescaped")


def reference(held_out: pd.DataFrame, labels: list[str], logits: np.ndarray, words: np.ndarray) -> pd.DataFrame:
    """What windows are compared with: the held-out messages (n rows) without their texts, with their logits (n, K)."""
    texts = held_out["text"].tolist()
    groups = groups_of(texts)
    columns = {f"logit_{label}": logits[:, at].astype(np.float32) for at, label in enumerate(labels)}
    known = pd.DataFrame({"label": held_out["label"].tolist(), "split": held_out["split"].tolist(), "group": groups, **columns})
    return pd.concat([known, descriptors(texts, words)], axis=1)


def lineage(lock: Mapping[str, Any], origin: Path, stage: str) -> dict[str, Any]:
    """What a version came from: the commit, what in it is not of the commit, and the bytes that count."""
    return {
        "commit": git("rev-parse", "HEAD"),
        "modified": sorted(
            line.split()[-1]
            for line in (
                git("--no-optional-locks", "status", "--porcelain", "--", PROJECT.params, PROJECT.lock) or ""
            ).splitlines()
        ),
        "dvc_lock": file_sha256(PROJECT.lock) if PROJECT.lock.exists() else None,
        "params": file_sha256(PROJECT.params),
        "messages": file_sha256(PROJECT.messages),
        # As DVC names the folder in its cache and remotes.
        "model": {"path": origin.as_posix(), "md5": locked_md5(lock, stage, "outs", origin)},
    }


def git(*arguments: str | Path) -> str | None:
    """What git says; None where there is no git, or no commit."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
