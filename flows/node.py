"""One training for a pipeline that runs on another machine: as a task of Ray, or as the flow of a pod of Kubernetes.

The machine has a clone of its own, which BALLAST_ROOT names. It is brought to the pipeline's commit; DVC pulls what the stage
reads, trains, and pushes the result and the run cache, so that nobody trains the same again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joblib import cpu_count  # type: ignore[import-untyped]
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models.folder import MANIFEST
from ballast.training.launching import check_gpus
from flows.commands import hide_tracebacks, run_command, share_process_group, stopping_commands
from flows.nodes.commits import at_commit, uncommitted
from flows.nodes.remote import check_remote, lock_entries, merge_lock_entries, pull, push, remove_lock_entry
from flows.recovery.cleanup import recover

# What decides a training beside what DVC carries: the cards hold the sources of techniques, but only as hashes.
SOURCES = ("dvc.yaml", "ballast", "stages")
# The key of the artifact in which the flow answers.
ANSWER = "trained"


def train(
    stage: str,
    commit: str,
    data: str,
    inputs: dict[str, Any],
    paths: list[str],
    gpus: float,
    log: Callable[[str], object],
) -> dict[str, Any]:
    """Train in this machine's clone; raises StageFailed, and UserError that names the machine.

    Parameters
    ----------
    stage : the training, such as train@focal-0.
    commit : what the clone has to be at.
    data : names what all trainings of the pipeline read; one that has other data waits until nobody trains in the clone.
    inputs : the pipeline's entries in dvc.lock of the stages that wrote what this one reads.
    paths : the files among their outputs that this one reads.
    gpus : how many the training was given.
    log : what each line of the commands is told to.

    Returns
    -------
    A mapping: node, where it ran; trained, false when the run cache had it; entry, the stage's own in dvc.lock; manifests, the
    sha256 of each model's manifest by folder.
    """
    name = os.environ.get("BALLAST_ROOT", "")
    root, lines = Path(name), list[str]()
    # A container's share of its machine's cores, which torch does not know; Ray sets it itself.
    given = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cpu_count(only_physical_cores=True))}
    if not gpus:
        # Ray hides none from a task that was given none.
        given["CUDA_VISIBLE_DEVICES"] = ""
    with on_this_machine(name):
        if not name or not (root / ".git").exists():
            raise UserError("BALLAST_ROOT names no clone of the project; set it where Ray or the worker starts")
        with at_commit(root, commit, data):
            if changed := uncommitted(root, *SOURCES, "params.yaml", untracked=True):
                raise UserError(f"{changed[0]} is not as in commit {commit[:12]}; commit or restore it")
            recover(log, root)
            check_remote(root)
            check_gpus(gpus)
            merge_lock_entries(root, inputs)
            # Of an entry that came with the commit DVC would say that nothing changed, and have no result to show.
            remove_lock_entry(root, stage)

            def note(line: str) -> None:
                lines.append(line)
                log(line)

            pull(root, stage, paths, paths, note)
            repro = ["dvc", "--wait-for-lock", "repro", "--pull", "--allow-missing", "--single-item", stage]
            run_command(stage, repro, note, given, root)
            push(root, stage, [stage], note, "--run-cache")
            entry: dict[str, Any] = lock_entries(root)[stage]
        folders = [out["path"] for out in entry["outs"] if (root / out["path"] / MANIFEST).is_file()]
        return {
            "node": f"{socket.gethostname()}:{root}",
            "trained": any(line.startswith("Running stage") for line in lines),
            "entry": entry,
            "manifests": {folder: file_sha256(root / folder / MANIFEST) for folder in folders},
        }


@contextmanager
def on_this_machine(root: str) -> Iterator[None]:
    """Say in a user's error which machine it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"node {socket.gethostname()}:{root}: {error}") from error


@task(name="train on a node", task_run_name="{stage}", cache_policy=NO_CACHE)
def on_ray(stage: str, commit: str, data: str, inputs: dict[str, Any], paths: list[str], gpus: float) -> dict[str, Any]:
    """As a task of Ray, which has set the threads and the GPU."""
    hide_tracebacks()
    share_process_group()
    return train(stage, commit, data, inputs, paths, gpus, get_run_logger().info)


@flow(name="train", flow_run_name="{stage}")
def on_worker(stage: str, commit: str, data: str, inputs: dict[str, Any], paths: list[str], gpus: float = 0.0) -> None:
    """As the flow of a deployment; the answer is an artifact, because a pod's results stay in the pod."""
    hide_tracebacks()
    with stopping_commands():
        answer = train(stage, commit, data, inputs, paths, gpus, get_run_logger().info)
    create_table_artifact([answer], key=ANSWER, description=f"{stage} on {answer['node']}")
