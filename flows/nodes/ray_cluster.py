"""Trainings as tasks of a Ray cluster."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.exceptions import CrashedRun
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

import ballast
import flows
from ballast.exceptions import UserError
from flows.node import on_ray
from flows.nodes.engine import NodeLost, TrainingRequest, TrainingResult, check_server, first_line, parts_of
from flows.settings import PARAMS

# Interval at which the cluster is asked whether it still has the resources of waiting trainings.
POLL_SECONDS = 30.0
CONNECT_SECONDS = 10.0


class RayCluster:
    """A Ray cluster. Each training is a task with its own CPUs, which are its threads, and GPUs."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # Ray makes three attempts with growing timeouts, even with a wrong token. It reads this variable when it is imported.
        os.environ.setdefault("RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S", "5")
        try:
            import prefect_ray  # noqa: F401
        except ImportError as error:
            raise UserError(f"nodes.train is ray, which is not installed ({error}); run `make nodes`") from error
        self.address, self.cpus = settings["address"], int(settings["cpus"])
        self.wait_seconds = 60.0 * settings["wait_minutes"]
        self.waiting_since: dict[PrefectFuture[Any], float] = {}
        self.refused: dict[PrefectFuture[Any], UserError] = {}

    def task_runner(self) -> TaskRunner[Any]:
        if self.address is not None:
            check_server("ray", self.address)
            check_address(self.address)
        from prefect_ray import RayTaskRunner

        # Nodes run this code, whatever commit their clones are at; the commands that it starts belong to the clone.
        code = [str(Path(str(package.__file__)).parent) for package in (ballast, flows)]
        return RayTaskRunner(self.address, {"runtime_env": {"py_modules": code}})

    def check(self, requests: Iterable[TrainingRequest]) -> None:
        for request in requests:
            if not self.wait_seconds and (refusal := self.refusal(request)) is not None:
                raise refusal

    def refusal(self, request: TrainingRequest) -> UserError | None:
        """The error of a training that no current node can run, or None."""
        import ray

        nodes, needs = [node for node in ray.nodes() if node["Alive"]], {"CPU": self.cpus, "GPU": request.gpus}
        if any(all(node["Resources"].get(kind, 0) >= count for kind, count in needs.items()) for node in nodes):
            return None
        available = "; ".join(f"{node['NodeManagerHostname']}: {describe_resources(node['Resources'])}" for node in nodes)
        return UserError(
            f"{request.stage} asks for a node with {describe_resources(needs)} (nodes.cpus, nodes.gpus, nodes.gpus_of),"
            f" but the Ray cluster has {available or 'no node'}; if the cluster adds nodes on demand, set nodes.wait_minutes"
        )

    def submit(self, request: TrainingRequest) -> PrefectFuture[Any]:
        from prefect_ray.context import remote_options

        # We submit a lost training again ourselves, after a check that the cluster can still run it.
        with remote_options(num_cpus=self.cpus, num_gpus=request.gpus, max_retries=0):
            return on_ray.submit(**asdict(request))

    def wait_any(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        import ray

        by_reference = {future.wrapped_future: future for future in running}  # type: ignore[attr-defined]
        try:
            while True:
                done, _ = ray.wait(list(by_reference), num_returns=1, timeout=POLL_SECONDS)
                if done:
                    return by_reference[done[0]]
                for reference, future in by_reference.items():
                    # A running training has its resources, so only a waiting one can be refused.
                    if (refusal := self.refusal(running[future])) is None:
                        self.waiting_since.pop(future, None)
                    elif time.monotonic() - self.waiting_since.setdefault(future, time.monotonic()) >= self.wait_seconds:
                        ray.cancel(reference)
                        self.refused[future] = refusal
                        return future
        except ConnectionError as error:
            raise UserError(f"the connection to the Ray cluster is lost: {error}") from error

    def result(self, future: PrefectFuture[Any]) -> TrainingResult:
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RuntimeEnvSetupError, WorkerCrashedError

        if future in self.refused:
            raise self.refused[future]
        try:
            return dict(future.result())
        except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, CrashedRun) as error:
            raise NodeLost(first_line(error)) from error
        except RuntimeEnvSetupError as error:
            raise UserError(f"a node of the Ray cluster cannot load our code: {first_line(error)}") from error


def check_address(address: str) -> None:
    """Raise UserError if nothing listens at host:port or ray://host:port; Ray would try for minutes and end this process."""
    parts = parts_of(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise UserError(f"{PARAMS}: nodes.address: no Ray cluster answers at {address} ({error})") from error


def describe_resources(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs of a node.

    >>> describe_resources({"CPU": 4.0, "memory": 1e9})
    '4 CPU and 0 GPU'
    """
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"
