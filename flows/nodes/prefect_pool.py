"""Trainings as runs of a deployment in a Prefect work pool, which on Kubernetes are pods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import httpx
from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, StateType, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Cancelling
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ballast.exceptions import UserError
from flows import HEARTBEAT
from flows.commands import stopped
from flows.node import RESULT_KEY
from flows.nodes.engine import NodeLost, TrainingRequest, TrainingResult, check_server
from flows.prefect_server.zombie_runs import silent_run_automation

# Interval at which Prefect's server is asked for the state of a run.
POLL_SECONDS = 5.0
PROCESS = "process"


class PrefectPool:
    """A Prefect work pool. Each training is a run of one deployment."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.deployment = str(settings["deployment"])

    def task_runner(self) -> TaskRunner[Any]:
        return ThreadPoolTaskRunner()

    def check(self, requests: Iterable[TrainingRequest]) -> None:
        check_server("kubernetes")
        with get_client(sync_client=True) as client:
            try:
                deployment = client.read_deployment_by_name(self.deployment)
            except ObjectNotFound as error:
                raise UserError(
                    f"nodes.deployment: the Prefect server has no deployment {self.deployment}; infra/README.md says how to"
                    " create it"
                ) from error
            pool = client.read_work_pool(str(deployment.work_pool_name))
            # Without heartbeats, a run would seem to run forever if its machine and its worker die together. The wait for a
            # machine is up to the pod. In a pool of processes, pyproject.toml sets the heartbeat where the worker starts.
            if pool.type != PROCESS and HEARTBEAT not in json.dumps([deployment.job_variables, pool.base_job_template]):
                raise UserError(
                    f"nodes.deployment: the runs of {self.deployment} send no heartbeats; set {HEARTBEAT} in the template of"
                    f" the pool {pool.name}, as infra/kubernetes/job-template.json does"
                )
            if not client.read_automations_by_name((automation := silent_run_automation(deployment.id)).name):
                client.create_automation(automation)
        if pool.status != WorkPoolStatus.READY or pool.is_paused:
            raise UserError(
                f"nodes.deployment: the pool {pool.name} {'is paused' if pool.is_paused else 'has no worker'};"
                f" start one with `prefect worker start --pool {pool.name}`"
            )

    def submit(self, request: TrainingRequest) -> PrefectFuture[Any]:
        return run_in_pool.submit(self.deployment, asdict(request))

    def wait_any(self, running: Mapping[PrefectFuture[Any], TrainingRequest]) -> PrefectFuture[Any]:
        return next(as_completed(list(running)))

    def result(self, future: PrefectFuture[Any]) -> TrainingResult:
        return dict(future.result())


@task(task_run_name="{request[stage]}", cache_policy=NO_CACHE)
def run_in_pool(deployment: str, request: dict[str, Any]) -> TrainingResult:
    """Run a deployment for a training and wait for its result; raises NodeLost if the run crashed, UserError if it failed."""
    stage, variables = request["stage"], {"gpus": int(request["gpus"])}
    run = run_deployment(deployment, parameters=request, job_variables=variables, flow_run_name=stage, timeout=0)
    assert isinstance(run, FlowRun)  # a coroutine only if the caller is one
    with get_client(sync_client=True) as client:
        while (state := run.state) is None or not state.is_final():
            if stopped.wait(POLL_SECONDS):
                client.set_flow_run_state(run.id, Cancelling())
                raise UserError(f"{stage}: cancelled, because the pipeline was stopped")
            # A server that is unavailable for a while, or a proxy that says so, must not end a training.
            with suppress(httpx.TransportError):
                try:
                    run = client.read_flow_run(run.id)
                except PrefectHTTPStatusError as error:
                    if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        raise
        if state.type == StateType.CRASHED:
            raise NodeLost(str(state.message))
        if state.type != StateType.COMPLETED:
            raise UserError(f"{stage}: {state.message or state.name}")
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[RESULT_KEY]))
        (artifact,) = client.read_artifacts(artifact_filter=of_run)
    (result,) = json.loads(str(artifact.data))
    return dict(result)
