"""Engines that run trainings on other machines: the interface and the shared parts of its two implementations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from prefect import get_run_logger
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner

from ballast.exceptions import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
TrainingResult = dict[str, Any]


class NodeLost(UserError):  # noqa: N818
    """The machine of a training is gone, and the training with it."""


@dataclass(frozen=True)
class TrainingRequest:
    """A training for another machine: the arguments of `flows.node.train`."""

    stage: str
    commit: str
    data: str
    inputs: dict[str, Any]
    paths: list[str]
    gpus: float


class Engine(Protocol):
    """Runs trainings on other machines."""

    def task_runner(self) -> TaskRunner[Any]:
        """The Prefect task runner for the tasks of `submit`."""

    def check(self, requests: Iterable[TrainingRequest]) -> None:
        """Raise UserError if a request would wait forever."""

    def submit(self, request: TrainingRequest) -> PrefectFuture[Any]:
        """Start a training."""

    def wait_any(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        """Wait for the first training that ends, or that waits for resources which no node has any more."""

    def result(self, future: PrefectFuture[Any]) -> TrainingResult:
        """The result of `flows.node.train`; raises its errors, or NodeLost."""


def check_server(engine: str, address: str | None = None) -> None:
    """Raise UserError without a Prefect server; warn if the nodes of a cluster at `address` could not reach it."""
    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(f"nodes.train is {engine}, which needs PREFECT_API_URL: a Prefect server that the nodes can reach too")
    if address is not None and urlsplit(url).hostname in LOOPBACK and parts_of(address).hostname not in LOOPBACK:
        get_run_logger().warning("PREFECT_API_URL is %s, which on a node is the node itself", url)


def parts_of(address: str) -> SplitResult:
    """The parts of host:port or ray://host:port."""
    return urlsplit(address if "://" in address else f"ray://{address}")


def first_line(error: Exception) -> str:
    """The class of an exception and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
