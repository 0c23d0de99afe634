"""Send trainings to other machines and bring their results here.

Inputs and results go through DVC's default remote. What comes back is proven to be what the node trained, and is not trained
again here. A training whose machine is lost is sent again; the others go on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from prefect import flow, get_run_logger

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models.folder import MANIFEST, read_manifest
from flows import artifacts
from flows.commands import StageFailed, run_command, stopping_commands
from flows.node import SOURCES
from flows.nodes.commits import head, run_git, uncommitted
from flows.nodes.engine import Answer, NodeLost, TrainingRequest, engine_of, first_line
from flows.nodes.remote import check_remote, lock_entries, merge_lock_entries, pull, push, remove_lock_entry
from flows.settings import PARAMS, nodes, params, settings

HERE = Path()
# What a stage reads of the outputs of others: their paths by the name of the stage that writes them.
Reads = dict[str, list[str]]


def train_elsewhere(stages: Sequence[str], retries: int) -> None:
    """Bring trainings up to date on the machines that params.yaml names; raises StageFailed and UserError.

    What can be said before anything trains is said first. A training whose machine is lost is sent again, and a connection
    that fails is tried again, `retries` times.
    """
    reads = stale(stages)
    if not reads:
        return
    run_command("params", ["python", "-m", "stages.store.params"], get_run_logger().info)
    engine = engine_of(nodes())
    check_committed(reads)
    check_remote(HERE)
    for left in reversed(range(retries + 1)):
        try:
            return train_on_nodes.with_options(task_runner=engine.task_runner())(reads, retries)
        except ConnectionError as error:
            where, said = nodes()["address"] or "this machine", str(error).strip().splitlines()[-1:]
            refusal = f"nodes.address: {where} answers, but Ray does not connect ({' '.join(said)})"
            if not left:
                raise UserError(
                    f"{refusal}: is it a Ray cluster, and is its token that of RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token?"
                ) from error
            # Ray starts a server for each client, which on a busy machine fails now and then.
            get_run_logger().warning("%s; it is tried again", refusal)


@flow(name="train on nodes", flow_run_name="trainings on other machines")
def train_on_nodes(reads: dict[str, Reads], retries: int) -> None:
    """Send every training and collect what comes; after a failure the others go on, because what they train is kept."""
    # Inside the flow: Prefect leaves it only when its tasks have ended, and those wait for other machines.
    with stopping_commands(within=True):
        send(reads, retries)


def send(reads: dict[str, Reads], retries: int) -> None:
    """The body of the flow; raises the first failure."""
    log, wanted = get_run_logger(), nodes()
    engine, entries, commit = engine_of(wanted), lock_entries(HERE), head(HERE)
    read = {name: entries[name] for producers in reads.values() for name in producers}
    data = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
    orders = [
        TrainingRequest(
            stage=stage,
            commit=commit,
            data=data,
            inputs={name: entries[name] for name in producers},
            paths=sorted(path for paths in producers.values() for path in paths),
            gpus=gpus_for(stage, wanted),
        )
        for stage, producers in reads.items()
    ]
    engine.require(orders)
    inputs = sorted({path for order in orders for path in order.paths})
    push(HERE, "push", inputs, log.info)
    running = {engine.submit(order): order for order in orders}
    lost, failures, table = Counter[str](), list[StageFailed | UserError](), list[dict[str, object]]()
    while running:
        try:
            future = engine.first(running)
        except UserError as error:
            failures.append(error)
            break
        order = running.pop(future)
        stage = order.stage
        try:
            try:
                answer = engine.answer(future)
            except (NodeLost, StageFailed) as failure:
                if isinstance(failure, StageFailed) and not failure.transient:
                    raise
                lost[stage] += 1
                if lost[stage] > retries:
                    raise UserError(f"{stage}: lost {lost[stage]} times; the last time: {said_by(failure)}") from failure
                log.warning("%s: lost (%s); it is trained again", stage, said_by(failure))
                engine.require([order])
                running[engine.submit(order)] = order
                continue
            collect(stage, answer)
        except Exception as error:
            # Whatever it is, the others go on.
            known = error if isinstance(error, StageFailed | UserError) else UserError(f"{stage}: {first_line(error)}")
            log.error("%s", said_by(known), exc_info=known is not error)
            failures.append(known)
        else:
            log.info("%s: %s on %s", stage, "trained" if answer["trained"] else "found in the run cache", answer["node"])
            table.append({"training": stage, "node": answer["node"], "trained": answer["trained"], "lost": lost[stage]})
    artifacts.table(table, key="nodes", description="which machine trained what")
    if failures:
        raise failures[0]


def said_by(failure: Exception) -> str:
    """An error in one line."""
    return failure.headline if isinstance(failure, StageFailed) else str(failure)


def stale(stages: Sequence[str]) -> dict[str, Reads]:
    """The stages that must run, and what they read; those that only lack files which the cache has get them back.

    Raises UserError when DVC cannot say.
    """
    try:
        with Repo(_wait_for_lock=True) as repo, repo.lock:
            reads: dict[str, Reads] = {}
            for stage in (each for each in repo.index.stages if each.addressing in set(stages)):
                if stage.changed_stage() or stage.changed_deps() or not stage.outs_cached():
                    reads[stage.addressing] = {
                        producer.addressing: [
                            out.def_path for out in producer.outs if any(holds(out, dep) for dep in stage.deps)
                        ]
                        for producer in repo.index.graph.successors(stage)
                    }
                elif stage.changed_outs():
                    stage.checkout(force=True)
            return reads
    except DvcException as error:
        raise UserError(str(error)) from error


def holds(output: Any, dependency: Any) -> bool:
    """Whether a dependency is an output, or in it."""
    return bool(output.fs.isin_or_eq(dependency.fs_path, output.fs_path))


def check_committed(stages: Iterable[str]) -> None:
    """Raise UserError when a training depends on what no commit has: a node would not see it.

    Of params.yaml that is the section `train` and which entries there are; what an entry says comes with its card, through DVC.
    """
    if changed := uncommitted(HERE, *SOURCES, untracked=True):
        raise UserError(f"{changed[0]} is not as in the last commit, so that a node would not see it; commit it")
    committed = settings(run_git(HERE, "show", f"HEAD:./{PARAMS}").encode())
    if committed.get("train") != params().get("train"):
        raise UserError(f"{PARAMS}: train is not as in the last commit, so that a node would not see it; commit it")
    for stage in stages:
        if entry_of(stage) not in committed["techniques"]:
            raise UserError(
                f"{PARAMS}: techniques.{entry_of(stage)} is not in the last commit, so that no node knows it; commit it"
            )


def entry_of(stage: str) -> str:
    """The entry of techniques that a stage trains; stages are named train@<entry>-<seed>."""
    return stage.partition("@")[2].rpartition("-")[0]


def gpus_for(stage: str, wanted: Mapping[str, Any]) -> float:
    """The GPUs that a training is to get."""
    return float(wanted["gpus_of"].get(entry_of(stage), wanted["gpus"]))


def collect(stage: str, answer: Answer) -> None:
    """Bring a node's result here; raises UserError when it cannot be had or is not what the node trained."""
    merge_lock_entries(HERE, {stage: answer["entry"]})
    try:
        pull(HERE, stage, [stage], [out["path"] for out in answer["entry"]["outs"]], get_run_logger().info)
        for folder, expected in answer["manifests"].items():
            read_manifest(Path(folder))
            if (found := file_sha256(Path(folder) / MANIFEST)) != expected:
                raise UserError(
                    f"{folder}/{MANIFEST}: sha256 is {found}, that which {answer['node']} trained has {expected}; run again"
                )
        if stale([stage]):
            raise UserError(f"{stage}: {answer['node']} trained it from other inputs than those that are here now; run again")
    except BaseException:
        # Else the next run would find up to date what nobody has proven.
        remove_lock_entry(HERE, stage)
        raise
