"""What runs trainings on other machines: a Ray cluster, or a work pool of Prefect, on Kubernetes."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import httpx
from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, StateType, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import CrashedRun, ObjectNotFound, PrefectHTTPStatusError
from prefect.futures import PrefectFuture, as_completed
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

import ballast
import flows
from ballast.exceptions import UserError, suggestion
from flows import HEARTBEAT
from flows.commands import stopped
from flows.node import ANSWER, on_ray
from flows.prefect_server.zombie_runs import silent_run_automation
from flows.settings import PARAMS

# How often the cluster is asked whether it still has what the waiting trainings need.
ASK_SECONDS = 30.0
CONNECT_SECONDS = 10.0
# How often Prefect's server is asked how a run goes.
POLL_SECONDS = 5.0
PROCESS = "process"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
Answer = dict[str, Any]


class NodeLost(UserError):  # noqa: N818
    """The machine of a training is gone, and with it the training."""


@dataclass(frozen=True)
class TrainingRequest:
    """A training to be done elsewhere: the arguments of `flows.node.train`."""

    stage: str
    commit: str
    data: str
    inputs: dict[str, Any]
    paths: list[str]
    gpus: float


class Engine(Protocol):
    """What runs trainings on other machines."""

    def task_runner(self) -> TaskRunner[Any]:
        """What Prefect runs the tasks of `submit` with."""

    def require(self, orders: Iterable[TrainingRequest]) -> None:
        """Raise UserError when an order would wait for ever."""

    def submit(self, order: TrainingRequest) -> PrefectFuture[Any]:
        """Begin a training."""

    def first(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        """The first of the running ones to end, or to wait for what is no longer there."""

    def answer(self, future: PrefectFuture[Any]) -> Answer:
        """What `flows.node.train` returned; raises what it raised, or NodeLost."""


def engine_of(wanted: Mapping[str, Any]) -> Engine:
    """The engine that params.yaml names; raises UserError for an unknown one."""
    engines: dict[str, type[RayCluster | WorkPool]] = {"ray": RayCluster, "kubernetes": WorkPool}
    if wanted["train"] not in engines:
        raise UserError(
            f"{PARAMS}: nodes.train {wanted['train']!r} is unknown: {suggestion(str(wanted['train']), ['here', *engines])}"
        )
    return engines[wanted["train"]](wanted)


class RayCluster:
    """A Ray cluster; every training is one of its tasks, with cores, which are its threads, and GPUs of its own."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        # Ray tries thrice, ever longer, also where it was told that the token is wrong. It reads this when it is imported.
        os.environ.setdefault("RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S", "5")
        try:
            import prefect_ray  # noqa: F401
        except ImportError as error:
            raise UserError(f"nodes.train is ray, which is not installed ({error}); run `make nodes`") from error
        self.address, self.cpus = wanted["address"], int(wanted["cpus"])
        self.patience = 60.0 * wanted["wait_minutes"]
        self.waiting_since: dict[PrefectFuture[Any], float] = {}
        self.refused: dict[PrefectFuture[Any], UserError] = {}

    def task_runner(self) -> TaskRunner[Any]:
        if self.address is not None:
            check_server("ray", self.address)
            check_address(self.address)
        from prefect_ray import RayTaskRunner

        # The nodes run this code, whatever their clones are at; what it starts there is the clone's.
        code = [str(Path(str(package.__file__)).parent) for package in (ballast, flows)]
        return RayTaskRunner(self.address, {"runtime_env": {"py_modules": code}})

    def require(self, orders: Iterable[TrainingRequest]) -> None:
        for order in orders:
            if not self.patience and (refusal := self.refusal(order)) is not None:
                raise refusal

    def refusal(self, order: TrainingRequest) -> UserError | None:
        """What to say of a training that no node of the cluster, as it is now, can do."""
        import ray

        alive, needs = [node for node in ray.nodes() if node["Alive"]], {"CPU": self.cpus, "GPU": order.gpus}
        if any(all(node["Resources"].get(kind, 0) >= count for kind, count in needs.items()) for node in alive):
            return None
        has = "; ".join(f"{node['NodeManagerHostname']}: {describe_resources(node['Resources'])}" for node in alive)
        return UserError(
            f"{order.stage} asks for a node with {describe_resources(needs)} (nodes.cpus, nodes.gpus, nodes.gpus_of),"
            f" the Ray cluster has {has or 'no node'}; one that adds nodes wants nodes.wait_minutes"
        )

    def submit(self, order: TrainingRequest) -> PrefectFuture[Any]:
        from prefect_ray.context import remote_options

        # A lost training is sent again by us, who then ask first whether the cluster still can.
        with remote_options(num_cpus=self.cpus, num_gpus=order.gpus, max_retries=0):
            return on_ray.submit(**asdict(order))

    def first(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        import ray

        by_reference = {future.wrapped_future: future for future in running}  # type: ignore[attr-defined]
        try:
            while True:
                done, _ = ray.wait(list(by_reference), num_returns=1, timeout=ASK_SECONDS)
                if done:
                    return by_reference[done[0]]
                for reference, future in by_reference.items():
                    # One that runs has what it needs, so one that is refused waits.
                    if (refusal := self.refusal(running[future])) is None:
                        self.waiting_since.pop(future, None)
                    elif time.monotonic() - self.waiting_since.setdefault(future, time.monotonic()) >= self.patience:
                        ray.cancel(reference)
                        self.refused[future] = refusal
                        return future
        except ConnectionError as error:
            raise UserError(f"the connection to the Ray cluster is lost: {error}") from error

    def answer(self, future: PrefectFuture[Any]) -> Answer:
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RuntimeEnvSetupError, WorkerCrashedError

        if future in self.refused:
            raise self.refused[future]
        try:
            return dict(future.result())
        except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, CrashedRun) as error:
            raise NodeLost(first_line(error)) from error
        except RuntimeEnvSetupError as error:
            raise UserError(f"a node of the Ray cluster cannot take our code: {first_line(error)}") from error


def check_server(engine: str, address: str | None = None) -> None:
    """Raise UserError without a Prefect server for the nodes; warn where those of a cluster at an address would not find it."""
    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(f"nodes.train is {engine}, which needs PREFECT_API_URL: a Prefect server that the nodes reach too")
    if address is not None and urlsplit(url).hostname in THIS_MACHINE and parts_of(address).hostname not in THIS_MACHINE:
        get_run_logger().warning("PREFECT_API_URL is %s, which on a node is the node itself", url)


def parts_of(address: str) -> SplitResult:
    """The parts of host:port or ray://host:port."""
    return urlsplit(address if "://" in address else f"ray://{address}")


def check_address(address: str) -> None:
    """Raise UserError when nothing listens at host:port or ray://host:port; Ray would try for minutes and end this process."""
    parts = parts_of(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise UserError(f"{PARAMS}: nodes.address: no Ray cluster answers at {address} ({error})") from error


def describe_resources(resources: Mapping[str, float]) -> str:
    """Cores and GPUs of a node."""
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"


def first_line(error: Exception) -> str:
    """An exception's kind and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


class WorkPool:
    """A work pool of Prefect; every training is a run of a deployment in it, on Kubernetes a pod."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self.deployment = str(wanted["deployment"])

    def task_runner(self) -> TaskRunner[Any]:
        return ThreadPoolTaskRunner()

    def require(self, orders: Iterable[TrainingRequest]) -> None:
        check_server("kubernetes")
        with get_client(sync_client=True) as client:
            try:
                found = client.read_deployment_by_name(self.deployment)
            except ObjectNotFound as error:
                raise UserError(
                    f"nodes.deployment: the Prefect server has no {self.deployment}; infra/README.md says how to make it"
                ) from error
            pool = client.read_work_pool(str(found.work_pool_name))
            # Else a run whose machine dies with its worker would go on for ever. How long a pod waits for a machine is its own.
            # A pool of processes has it from pyproject.toml, where its worker starts.
            if pool.type != PROCESS and HEARTBEAT not in json.dumps([found.job_variables, pool.base_job_template]):
                raise UserError(
                    f"nodes.deployment: the runs of {self.deployment} tell nobody that they live; set {HEARTBEAT} in"
                    f" the template of the pool {pool.name}, as infra/kubernetes/job-template.json does"
                )
            if not client.read_automations_by_name((silent := silent_run_automation(found.id)).name):
                client.create_automation(silent)
        if pool.status != WorkPoolStatus.READY or pool.is_paused:
            raise UserError(
                f"nodes.deployment: the pool {pool.name} is {'paused' if pool.is_paused else 'without a worker'};"
                f" start one: `prefect worker start --pool {pool.name}`"
            )

    def submit(self, order: TrainingRequest) -> PrefectFuture[Any]:
        return run_in_pool.submit(self.deployment, asdict(order))

    def first(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        return next(as_completed(list(running)))

    def answer(self, future: PrefectFuture[Any]) -> Answer:
        return dict(future.result())


@task(task_run_name="{order[stage]}", cache_policy=NO_CACHE)
def run_in_pool(deployment: str, order: dict[str, Any]) -> Answer:
    """Run a deployment for a training and wait for its answer; raises NodeLost if the run crashed, UserError if it failed."""
    variables = {"gpus": int(order["gpus"])}
    run = run_deployment(deployment, parameters=order, job_variables=variables, flow_run_name=order["stage"], timeout=0)
    assert isinstance(run, FlowRun)  # a coroutine where the caller is one
    with get_client(sync_client=True) as client:
        while (state := run.state) is None or not state.is_final():
            if stopped.wait(POLL_SECONDS):
                client.set_flow_run_state(run.id, Cancelling())
                raise UserError(f"{order['stage']}: cancelled, because the pipeline was stopped")
            # A server that is away for a while, or a proxy before it that says so, ends no training.
            with suppress(httpx.TransportError):
                try:
                    run = client.read_flow_run(run.id)
                except PrefectHTTPStatusError as error:
                    if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        raise
        if state.type == StateType.CRASHED:
            raise NodeLost(str(state.message))
        if state.type != StateType.COMPLETED:
            raise UserError(f"{order['stage']}: {state.message or state.name}")
        (found,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[ANSWER])
            )
        )
    (answer,) = json.loads(str(found.data))
    return dict(answer)
