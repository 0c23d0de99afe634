"""The work pool of `make serve`: its template, its queues, and the deployments of infra/prefect.yaml in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from ballast.exceptions import UserError
from flows.prefect_server.zombie_runs import in_state, zombie_run_automations

DEPLOYMENTS, TEMPLATE = Path("infra/prefect.yaml"), Path("infra/process-template.json")
POOL, KIND = "ballast", "process"
# How many runs of a queue may go on at a time: after days without a server all that were due come at once.
QUEUES = {"default": 2, "scoring": 2, "training": 1}


async def prepare(client: PrefectClient) -> None:
    """Create what is missing of the work pool, its queues and the automation that finds lost runs.

    The pool has our template, also where it was made with Prefect's, by which a run chooses the command that it is.
    """
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(name=POOL, type=KIND, base_job_template=template))
    if (await client.read_work_pool(POOL)).base_job_template != template:
        await client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
    for name, limit in QUEUES.items():
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=POOL)
        if queue.concurrency_limit != limit:
            await client.update_work_queue(queue.id, concurrency_limit=limit)
    for automation in zombie_run_automations():
        if not await client.read_automations_by_name(automation.name):
            await client.create_automation(automation)


def deploy(environment: Mapping[str, str]) -> None:
    """Deploy all of infra/prefect.yaml; raises UserError with what Prefect says."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    # Prefect would write our own path where the worker is to put its own.
    here = {name: value for name, value in environment.items() if name != "BALLAST_ROOT"}
    done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError(f"{DEPLOYMENTS}: not deployed: {(lines or ['no reason given'])[-1]}")


async def table(client: PrefectClient) -> list[str]:
    """A line for each deployment: its queue, its schedule, and when it runs next."""
    found = await client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])))
    lines = []
    for each in sorted(found, key=lambda each: each.name):
        active = [schedule for schedule in each.schedules if schedule.active]
        when = ", ".join(described(schedule.schedule) for schedule in active) or "by hand or by an event"
        following = await next_run(client, each) if active else ""
        lines.append(f"  {each.name:<10} {each.work_queue_name:<10} {when:<28} {following}")
    return [line.rstrip() for line in lines]


def described(schedule: object) -> str:
    """A schedule in a few words."""
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    return f"every {getattr(schedule, 'interval', schedule)}"


async def next_run(client: PrefectClient, deployment: DeploymentResponse) -> str:
    """When a scheduled deployment runs next; the scheduler takes some seconds to say so."""
    for _ in range(50):
        runs = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=in_state(StateType.SCHEDULED),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=1,
        )
        if runs and runs[0].expected_start_time:
            return f"next {runs[0].expected_start_time:%Y-%m-%d %H:%M} UTC"
        await asyncio.sleep(0.3)
    return "next run not known yet"
