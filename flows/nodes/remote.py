"""The DVC remote through which machines share data and models: whether it can be used, before anything rests on it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from dvc.config import NoRemoteError
from dvc.data_cloud import Remote
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml

from ballast.exceptions import UserError
from ballast.io.urls import public_url
from flows.commands import StageFailed, run_command, stopped

LOCK = "dvc.lock"
# S3's own client tries for minutes where nobody answers.
ANSWER_SECONDS = 60.0
# How often files are brought or sent, and how long after a store that was away for a moment is tried again.
TRIES, TRY_AGAIN_SECONDS = 3, 30.0


def check_remote(root: Path) -> None:
    """Write and read a small object; raises UserError when that fails or DVC would not verify what it reads."""
    try:
        with Repo(str(root)) as repo:
            remote = repo.cloud.get_remote()
            # Raises for what holds no run cache.
            repo.cloud.get_remote_odb(remote.name, "push --run-cache")
    except NoRemoteError as error:
        raise UserError(
            "there is no DVC remote to share through: `dvc remote add --default store s3://bucket/folder` (or a folder that all"
            " machines see), then commit .dvc/config"
        ) from error
    except DvcException as error:
        raise UserError(f"the DVC remote cannot be used: {error}") from error
    where = f"DVC remote {remote.name} ({public_url(remote.fs.unstrip_protocol(remote.path))})"
    if not remote.odb.verify:
        raise UserError(
            f"{where}: DVC would take corrupted objects from it; run `dvc remote modify {remote.name} verify true`,"
            " then commit .dvc/config"
        )
    failures: list[Exception | None] = []
    attempt = threading.Thread(target=lambda: failures.append(failure_of(remote)), daemon=True)
    attempt.start()
    attempt.join(ANSWER_SECONDS)
    if not failures:
        raise UserError(f"{where}: no answer within {ANSWER_SECONDS:.0f} s")
    if failures[0] is not None:
        said = " ".join(str(failures[0]).split()) or "no reason given"
        raise UserError(f"{where} cannot be written and read here: {type(failures[0]).__name__}: {said}") from failures[0]


def failure_of(remote: Remote) -> Exception | None:
    """What goes wrong when a small object is written to a remote and read."""
    folder, content = remote.fs.protocol == "local", b"written to see whether the store can be used"
    # A store writes an object at once, and DVC needs no right to delete there; who reads a file may find half of it.
    path = remote.fs.join(remote.path, f".check-{uuid4().hex}" if folder else ".check")
    try:
        # DVC would make the folder, also where a shared one is not mounted.
        if folder and not Path(remote.path).is_dir():
            return FileNotFoundError("no such folder")
        remote.fs.pipe_file(path, content)
        same = remote.fs.cat_file(path) == content
        if folder:
            remote.fs.rm_file(path)
        return None if same else OSError("what is read is not what was written")
    except Exception as error:
        return error


def lock_entries(root: Path) -> dict[str, dict[str, object]]:
    """What dvc.lock says of each stage: its inputs and outputs, with their hashes."""
    if not (root / LOCK).exists():
        return {}
    try:
        return dict(load_yaml(root / LOCK)["stages"])
    except (DvcException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{root / LOCK}: not as DVC writes it; restore it with `git checkout {LOCK}`") from error


def merge_lock_entries(root: Path, entries: dict[str, dict[str, object]]) -> None:
    """Put another machine's entries into dvc.lock, while no DVC command here reads or writes it."""
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock, modify_yaml(root / LOCK) as content:
        content.setdefault("schema", "2.0")
        content.setdefault("stages", {}).update(entries)


def remove_lock_entry(root: Path, stage: str) -> None:
    """Take a stage out of dvc.lock, so that it counts as never run."""
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock, modify_yaml(root / LOCK) as content:
        content["stages"].pop(stage, None)


def push(root: Path, stage: str, targets: Sequence[str], log: Callable[[str], object], *options: str) -> None:
    """Send the files of targets to the remote; raises StageFailed."""
    transfer(root, stage, ["push", *options, *targets], [], log)


def pull(root: Path, stage: str, targets: Sequence[str], outputs: Sequence[str], log: Callable[[str], object]) -> None:
    """Bring the files of targets from the remote into a clone; raises UserError that names what is not to be had, StageFailed.

    Not left to `dvc repro --pull`: it takes an older file for the one asked for, and trains where an object is corrupted.
    """
    try:
        transfer(root, stage, ["pull", "--force", *targets], outputs, log)
    except StageFailed as failure:
        if not (missing := named(failure, outputs)):
            raise
        raise UserError(
            f"{stage}: {', '.join(missing)} cannot be had from the DVC remote: missing there, or not what was pushed; delete"
            f" what is there of {', '.join(corrupt_objects(root, missing))}, and run again"
        ) from failure


def transfer(root: Path, stage: str, command: Sequence[str], outputs: Sequence[str], log: Callable[[str], object]) -> None:
    """Run a DVC command that speaks to the remote; again where it failed for another reason than one of the outputs."""
    for tries_left in reversed(range(TRIES)):
        try:
            return run_command(stage, ["dvc", "--wait-for-lock", *command], log, folder=root)
        except StageFailed as failure:
            # Hours of training are worth more than one try of a store that was away for a moment.
            if not tries_left or stopped.is_set() or named(failure, outputs):
                raise
        stopped.wait(TRY_AGAIN_SECONDS)


def named(failure: StageFailed, outputs: Sequence[str]) -> list[str]:
    """The outputs that DVC says it could not bring."""
    return [line for line in failure.lines if line in outputs]


def corrupt_objects(root: Path, outputs: Sequence[str]) -> Iterator[str]:
    """Yield the URLs of the outputs' objects that are missing or corrupt in the remote.

    If a file of a folder is corrupt, its list of files is included: DVC pushes no file of a folder while the list exists.
    """
    with Repo(str(root)) as repo:
        remote = repo.cloud.get_remote()

        def whole(path: str, name: str) -> bool:
            try:
                content = remote.fs.cat_file(path)
            except FileNotFoundError:
                return False
            return hashlib.md5(content, usedforsecurity=False).hexdigest() == name.removesuffix(".dir")

        for out in (each for each in repo.index.outs if each.def_path in outputs):
            folder = out.get_obj() if out.is_dir_checksum else None
            files = [] if folder is None else [each.value for _, _, each in folder]
            paths = {remote.odb.oid_to_path(name): name for name in [out.hash_info.value, *files]}
            bad = {path for path, name in paths.items() if not whole(path, name)}
            told = (path for path, name in paths.items() if path in bad or (bad and name.endswith(".dir")))
            yield from (public_url(remote.fs.unstrip_protocol(path)) for path in told)
