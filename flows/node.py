"""Run one training for a pipeline on another machine: as a Ray task, or as the flow of a Kubernetes pod.

The machine has its own clone, at the path in BALLAST_ROOT. It checks out the pipeline's commit; DVC pulls the inputs of the
stage, trains, and pushes the result and the run cache, so that no machine trains the same model again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
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
from flows.commands import Log, run_dvc, share_process_group, stopping_commands
from flows.failures import hide_tracebacks
from flows.nodes.commits import at_commit, uncommitted
from flows.nodes.remote import check_remote, lock_entries, merge_lock_entries, pull, push, remove_lock_entry
from flows.recovery.cleanup import recover

# What a training depends on besides DVC's files: cards hold only the hashes of a technique's sources.
SOURCES = ("dvc.yaml", "ballast", "stages")
# Key of the artifact that holds the result of the flow.
RESULT_KEY = "trained"


def train(
    stage: str,
    commit: str,
    data: str,
    inputs: dict[str, Any],
    paths: list[str],
    gpus: float,
    log: Log,
) -> dict[str, Any]:
    """Train in this machine's clone; raises StageFailed, and UserError that names the machine.

    Parameters
    ----------
    stage : the training, such as train@focal-0.
    commit : the commit that the clone must be at.
    data : identifies the inputs of all trainings of the pipeline. A training with other data waits until no training runs in
        the clone.
    inputs : the pipeline's dvc.lock entries of the stages that produce the inputs of this one.
    paths : the inputs, which are among the outputs of those stages.
    gpus : number of GPUs of this training.
    log : receives each line of output.

    Returns
    -------
    A mapping: node (where it ran), trained (false if the result came from the run cache), entry (the stage's entry in
    dvc.lock), manifests (folder of each model: sha256 of its manifest).
    """
    name = os.environ.get("BALLAST_ROOT", "")
    root = Path(name)
    with errors_that_name_this_machine(name):
        if not name or not (root / ".git").exists():
            raise UserError(
                "BALLAST_ROOT is not a clone of the project; set it to the path of the clone where Ray or the worker starts"
            )
        with at_commit(root, commit, data):
            if changed := uncommitted(root, *SOURCES, "params.yaml", untracked=True):
                raise UserError(f"{changed[0]} differs from commit {commit[:12]}; commit or restore it")
            recover(log, root)
            check_remote(root)
            check_gpus(gpus)
            merge_lock_entries(root, inputs)
            # With an entry from the commit, DVC would say that nothing changed, although the clone has no result.
            remove_lock_entry(root, stage)
            pull(root, stage, paths, paths, log)
            ran = run_dvc(
                stage, ["repro", "--pull", "--allow-missing", "--single-item", stage], log, training_environment(gpus), root
            )
            push(root, stage, [stage], log, "--run-cache")
            entry: dict[str, Any] = lock_entries(root)[stage]
        folders = [out["path"] for out in entry["outs"] if (root / out["path"] / MANIFEST).is_file()]
        return {
            "node": f"{socket.gethostname()}:{root}",
            "trained": stage in ran,
            "entry": entry,
            "manifests": {folder: file_sha256(root / folder / MANIFEST) for folder in folders},
        }


def training_environment(gpus: float) -> dict[str, str]:
    """Environment variables for the threads and GPUs of a training."""
    # torch does not know the container's share of the CPUs. Ray sets the variable itself.
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cpu_count(only_physical_cores=True))}
    if not gpus:
        # Ray hides no GPUs from a task that asked for none.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


@contextmanager
def errors_that_name_this_machine(root: str) -> Iterator[None]:
    """Put the name of this machine and its clone in front of the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"node {socket.gethostname()}:{root}: {error}") from error


@task(name="train on a node", task_run_name="{stage}", cache_policy=NO_CACHE)
def on_ray(stage: str, commit: str, data: str, inputs: dict[str, Any], paths: list[str], gpus: float) -> dict[str, Any]:
    """Train as a Ray task; Ray sets the threads and the GPU."""
    hide_tracebacks()
    share_process_group()
    return train(stage, commit, data, inputs, paths, gpus, get_run_logger().info)


@flow(name="train", flow_run_name="{stage}")
def on_worker(stage: str, commit: str, data: str, inputs: dict[str, Any], paths: list[str], gpus: float = 0.0) -> None:
    """Train as the flow of a deployment; the result is an artifact, because files of a pod stay in the pod."""
    hide_tracebacks()
    with stopping_commands():
        result = train(stage, commit, data, inputs, paths, gpus, get_run_logger().info)
    create_table_artifact([result], key=RESULT_KEY, description=f"{stage} on {result['node']}")
