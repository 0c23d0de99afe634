"""Send trainings to other machines and fetch their results.

Inputs and results go through DVC's default remote. A fetched result is verified to be what the node trained, so it is not
trained again here. If the machine of a training is lost, the training is sent again; the others continue.
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
from prefect.futures import PrefectFuture

from ballast.exceptions import UserError, suggestion
from ballast.io.digest import file_sha256
from ballast.models.folder import MANIFEST, read_manifest
from flows import artifacts
from flows.commands import run_command, stopping_commands
from flows.failures import StageFailed, one_line_of
from flows.node import SOURCES
from flows.nodes.commits import head, run_git, uncommitted
from flows.nodes.engine import Engine, NodeLost, TrainingRequest, TrainingResult, first_line
from flows.nodes.prefect_pool import PrefectPool
from flows.nodes.ray_cluster import RayCluster
from flows.nodes.remote import check_remote, lock_entries, merge_lock_entries, pull, push, remove_lock_entry
from flows.settings import PARAMS, nodes, params, settings

HERE = Path()
# The inputs of a stage: their paths by the name of the stage that produces them.
Reads = dict[str, list[str]]


def engine_of(node_settings: Mapping[str, Any]) -> Engine:
    """The engine that nodes.train of params.yaml names; raises UserError for an unknown one."""
    engines: dict[str, type[RayCluster | PrefectPool]] = {"ray": RayCluster, "kubernetes": PrefectPool}
    name = node_settings["train"]
    if name not in engines:
        raise UserError(f"{PARAMS}: nodes.train {name!r} is unknown: {suggestion(str(name), ['here', *engines])}")
    return engines[name](node_settings)


def train_elsewhere(stages: Sequence[str], retries: int) -> None:
    """Bring trainings up to date on the machines that params.yaml names; raises StageFailed and UserError.

    Settings are checked before anything trains. A lost training is sent again, and a failed connection is tried again, up to
    `retries` times.
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
            where, reason = nodes()["address"] or "this machine", str(error).strip().splitlines()[-1:]
            refusal = f"nodes.address: {where} answers, but Ray does not connect ({' '.join(reason)})"
            if not left:
                raise UserError(
                    f"{refusal}: check that it is a Ray cluster, and that RAY_AUTH_TOKEN is its token, with RAY_AUTH_MODE=token"
                ) from error
            # Ray starts a server for each client, which fails now and then on a busy machine.
            get_run_logger().warning("%s; trying again", refusal)


@flow(name="train on nodes", flow_run_name="trainings on other machines")
def train_on_nodes(reads: dict[str, Reads], retries: int) -> None:
    """Send every training and collect the results; after a failure the others continue, because their results are saved."""
    # Inside the flow, because Prefect leaves it only when its tasks have ended, and those wait for other machines.
    with stopping_commands(within=True):
        send(reads, retries)


def send(reads: dict[str, Reads], retries: int) -> None:
    """The body of the flow; raises the first failure."""
    log, engine, requests = get_run_logger(), engine_of(nodes()), training_requests(reads)
    engine.check(requests)
    push(HERE, "push", sorted({path for request in requests for path in request.paths}), log.info)
    running = {engine.submit(request): request for request in requests}
    losses, failures, rows = Counter[str](), list[StageFailed | UserError](), list[dict[str, object]]()
    while running:
        try:
            future = engine.wait_any(running)
        except UserError as error:
            failures.append(error)
            break
        request = running.pop(future)
        stage = request.stage
        try:
            result = result_or_none(engine, future, stage, losses, retries)
            if result is None:
                engine.check([request])
                running[engine.submit(request)] = request
                continue
            collect(stage, result)
        except Exception as error:
            # The others continue after any error.
            expected = error if isinstance(error, StageFailed | UserError) else UserError(f"{stage}: {first_line(error)}")
            log.error("%s", one_line_of(expected), exc_info=expected is not error)
            failures.append(expected)
        else:
            log.info("%s: %s on %s", stage, "trained" if result["trained"] else "found in the run cache", result["node"])
            rows.append({"training": stage, "node": result["node"], "trained": result["trained"], "lost": losses[stage]})
    artifacts.table(rows, key="nodes", description="the machine of each training")
    if failures:
        raise failures[0]


def training_requests(reads: Mapping[str, Reads]) -> list[TrainingRequest]:
    """The requests for the trainings of stages with these inputs."""
    node_settings, entries, commit = nodes(), lock_entries(HERE), head(HERE)
    produced = {name: entries[name] for producers in reads.values() for name in producers}
    data = hashlib.sha256(json.dumps(produced, sort_keys=True).encode()).hexdigest()
    return [
        TrainingRequest(
            stage=stage,
            commit=commit,
            data=data,
            inputs={name: entries[name] for name in producers},
            paths=sorted(path for paths in producers.values() for path in paths),
            gpus=gpus_for(stage, node_settings),
        )
        for stage, producers in reads.items()
    ]


def result_or_none(
    engine: Engine, future: PrefectFuture[Any], stage: str, losses: Counter[str], retries: int
) -> TrainingResult | None:
    """The result of a training, or None if it was lost and must be sent again; `losses` counts these.

    Raises UserError after more than `retries` losses, and any error of the training that is not transient.
    """
    try:
        return engine.result(future)
    except (NodeLost, StageFailed) as failure:
        if isinstance(failure, StageFailed) and not failure.transient:
            raise
        losses[stage] += 1
        if losses[stage] > retries:
            raise UserError(f"{stage}: lost {losses[stage]} times; the last time: {one_line_of(failure)}") from failure
        get_run_logger().warning("%s: lost (%s); sending it again", stage, one_line_of(failure))
        return None


def stale(stages: Sequence[str]) -> dict[str, Reads]:
    """The stages that must run, with their inputs; restores the outputs of the others from the cache.

    Raises UserError if DVC fails.
    """
    try:
        with Repo(_wait_for_lock=True) as repo, repo.lock:
            reads: dict[str, Reads] = {}
            for stage in (stage for stage in repo.index.stages if stage.addressing in set(stages)):
                if stage.changed_stage() or stage.changed_deps() or not stage.outs_cached():
                    reads[stage.addressing] = {
                        producer.addressing: [
                            out.def_path for out in producer.outs if any(contains(out, dep) for dep in stage.deps)
                        ]
                        for producer in repo.index.graph.successors(stage)
                    }
                elif stage.changed_outs():
                    stage.checkout(force=True)
            return reads
    except DvcException as error:
        raise UserError(str(error)) from error


def contains(output: Any, dependency: Any) -> bool:
    """Whether a dependency is an output or lies in it."""
    return bool(output.fs.isin_or_eq(dependency.fs_path, output.fs_path))


def check_committed(stages: Iterable[str]) -> None:
    """Raise UserError if a training depends on uncommitted changes, which a node would not see.

    In params.yaml, only the section `train` and the names of the entries of techniques count: the content of an entry comes
    with its card, through DVC.
    """
    if changed := uncommitted(HERE, *SOURCES, untracked=True):
        raise UserError(f"{changed[0]} differs from the last commit, so nodes would not see the change; commit it")
    committed = settings(run_git(HERE, "show", f"HEAD:./{PARAMS}").encode())
    if committed.get("train") != params().get("train"):
        raise UserError(f"{PARAMS}: train differs from the last commit, so nodes would not see the change; commit it")
    for stage in stages:
        if entry_of(stage) not in committed["techniques"]:
            raise UserError(
                f"{PARAMS}: techniques.{entry_of(stage)} is not in the last commit, so nodes would not see it; commit it"
            )


def entry_of(stage: str) -> str:
    """The entry of techniques that a stage trains.

    >>> entry_of("train@class_weight-0")
    'class_weight'
    """
    return stage.partition("@")[2].rpartition("-")[0]


def gpus_for(stage: str, node_settings: Mapping[str, Any]) -> float:
    """Number of GPUs of a training, by the section `nodes` of params.yaml."""
    return float(node_settings["gpus_of"].get(entry_of(stage), node_settings["gpus"]))


def collect(stage: str, result: TrainingResult) -> None:
    """Fetch the result of a node; raises UserError if it is unavailable or is not what the node trained."""
    merge_lock_entries(HERE, {stage: result["entry"]})
    try:
        pull(HERE, stage, [stage], [out["path"] for out in result["entry"]["outs"]], get_run_logger().info)
        for folder, expected in result["manifests"].items():
            read_manifest(Path(folder))
            if (actual := file_sha256(Path(folder) / MANIFEST)) != expected:
                raise UserError(
                    f"{folder}/{MANIFEST}: sha256 is {actual}, but {result['node']} trained one with {expected}; run again"
                )
        if stale([stage]):
            raise UserError(f"{stage}: {result['node']} trained it on inputs that differ from the current ones; run again")
    except BaseException:
        # Otherwise the next run would treat an unverified result as up to date.
        remove_lock_entry(HERE, stage)
        raise
