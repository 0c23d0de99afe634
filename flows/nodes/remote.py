"""The DVC remote through which machines share data and models."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from dvc.config import NoRemoteError
from dvc.data_cloud import Remote
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml

from ballast.exceptions import UserError
from ballast.io.urls import public_url
from flows.commands import Log, run_dvc, stopped
from flows.failures import StageFailed

LOCK = "dvc.lock"
# S3 clients retry for minutes if nothing answers.
ANSWER_SECONDS = 60.0
# Attempts to transfer files, and the time between them.
TRIES, TRY_AGAIN_SECONDS = 3, 30.0


def check_remote(root: Path) -> None:
    """Write and read a small object; raises UserError if that fails or if DVC would not verify what it reads."""
    try:
        with Repo(str(root)) as repo:
            remote = repo.cloud.get_remote()
            # Raises for a remote that cannot hold a run cache.
            repo.cloud.get_remote_odb(remote.name, "push --run-cache")
    except NoRemoteError as error:
        raise UserError(
            "there is no DVC remote to share data through: run `dvc remote add --default store s3://bucket/folder` (or a folder"
            " that all machines see), then commit .dvc/config"
        ) from error
    except DvcException as error:
        raise UserError(f"the DVC remote cannot be used: {error}") from error
    where = f"DVC remote {remote.name} ({public_url(remote.fs.unstrip_protocol(remote.path))})"
    if not remote.odb.verify:
        raise UserError(
            f"{where}: DVC would accept corrupted objects from it; run `dvc remote modify {remote.name} verify true`,"
            " then commit .dvc/config"
        )
    failures: list[Exception | None] = []
    attempt = threading.Thread(target=lambda: failures.append(probe(remote)), daemon=True)
    attempt.start()
    attempt.join(ANSWER_SECONDS)
    if not failures:
        raise UserError(f"{where}: no answer within {ANSWER_SECONDS:.0f} s")
    if failures[0] is not None:
        reason = " ".join(str(failures[0]).split()) or "no reason given"
        raise UserError(f"{where} cannot be written and read here: {type(failures[0]).__name__}: {reason}") from failures[0]


def probe(remote: Remote) -> Exception | None:
    """Write a small object to a remote and read it; returns the error, if any."""
    folder, content = remote.fs.protocol == "local", b"written to see whether the store can be used"
    # An object store writes an object at once, so one name is enough and DVC needs no right to delete. A file could be read
    # while another process writes it.
    path = remote.fs.join(remote.path, f".check-{uuid4().hex}" if folder else ".check")
    try:
        # DVC would create the folder, even if the shared one is not mounted.
        if folder and not Path(remote.path).is_dir():
            return FileNotFoundError("no such folder")
        remote.fs.pipe_file(path, content)
        same = remote.fs.cat_file(path) == content
        if folder:
            remote.fs.rm_file(path)
        return None if same else OSError("the content read differs from the content written")
    except Exception as error:
        return error


def lock_entries(root: Path) -> dict[str, dict[str, object]]:
    """The entries of dvc.lock by stage: inputs and outputs with their hashes; raises UserError for a damaged file."""
    if not (root / LOCK).exists():
        return {}
    try:
        return dict(load_yaml(root / LOCK)["stages"])
    except (DvcException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{root / LOCK}: not a valid lock file of DVC; restore it with `git checkout {LOCK}`") from error


def merge_lock_entries(root: Path, entries: dict[str, dict[str, object]]) -> None:
    """Put entries of another machine into dvc.lock, under DVC's lock."""
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock, modify_yaml(root / LOCK) as content:
        content.setdefault("schema", "2.0")
        content.setdefault("stages", {}).update(entries)


def remove_lock_entry(root: Path, stage: str) -> None:
    """Remove a stage from dvc.lock, so that DVC treats it as never run."""
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock, modify_yaml(root / LOCK) as content:
        content["stages"].pop(stage, None)


def push(root: Path, stage: str, targets: Sequence[str], log: Log, *options: str) -> None:
    """Send the files of targets to the remote; raises StageFailed."""
    transfer(root, stage, ["push", *options, *targets], [], log)


def pull(root: Path, stage: str, targets: Sequence[str], outputs: Sequence[str], log: Log) -> None:
    """Fetch the files of targets from the remote; raises StageFailed, and UserError with the outputs that the remote lacks.

    `dvc repro --pull` is not enough: it accepts an older file in place of the right one, and trains again if an object is
    corrupted.
    """
    try:
        transfer(root, stage, ["pull", "--force", *targets], outputs, log)
    except StageFailed as failure:
        if not (missing := unavailable(failure, outputs)):
            raise
        raise UserError(
            f"{stage}: the DVC remote cannot provide {', '.join(missing)}: missing or corrupted there; delete"
            f" {', '.join(corrupt_objects(root, missing))} if it exists, and run again"
        ) from failure


def transfer(root: Path, stage: str, command: Sequence[str], outputs: Sequence[str], log: Log) -> None:
    """Run a DVC command that uses the remote; try again unless one of the outputs is missing or corrupted."""
    for tries_left in reversed(range(TRIES)):
        try:
            run_dvc(stage, command, log, folder=root)
            return
        except StageFailed as failure:
            # A store that is briefly unavailable must not cost hours of training.
            if not tries_left or stopped.is_set() or unavailable(failure, outputs):
                raise
        stopped.wait(TRY_AGAIN_SECONDS)


def unavailable(failure: StageFailed, outputs: Sequence[str]) -> list[str]:
    """The outputs that DVC could not restore."""
    return [path for path in failure.missing if path in outputs]


def corrupt_objects(root: Path, outputs: Sequence[str]) -> Iterator[str]:
    """Yield the URLs of the outputs' objects that are missing or corrupted in the remote.

    If a file of a folder is corrupted, its list of files is included: DVC pushes no file of a folder while the list exists.
    """
    with Repo(str(root)) as repo:
        remote = repo.cloud.get_remote()

        def intact(path: str, md5: str) -> bool:
            try:
                content = remote.fs.cat_file(path)
            except FileNotFoundError:
                return False
            return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")

        for out in (out for out in repo.index.outs if out.def_path in outputs):
            folder = out.get_obj() if out.is_dir_checksum else None
            files = [] if folder is None else [hash_info.value for _, _, hash_info in folder]
            paths = {remote.odb.oid_to_path(md5): md5 for md5 in [out.hash_info.value, *files]}
            corrupt = {path for path, md5 in paths.items() if not intact(path, md5)}
            listed = (path for path, md5 in paths.items() if path in corrupt or (corrupt and md5.endswith(".dir")))
            yield from (public_url(remote.fs.unstrip_protocol(path)) for path in listed)
