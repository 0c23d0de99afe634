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
# Concurrency limits of the queues: after days without a server, all runs that were due start at once.
QUEUES = {"default": 2, "scoring": 2, "training": 1}


async def prepare(client: PrefectClient) -> None:
    """Create the work pool, its queues and the automations for zombie runs, as far as they are missing.

    An existing pool also gets our template: with Prefect's own, a run could choose its command.
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
    """Deploy everything in infra/prefect.yaml; raises UserError with the message of Prefect."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    # Otherwise Prefect would store our path instead of a placeholder for the worker's.
    without_root = {name: value for name, value in environment.items() if name != "BALLAST_ROOT"}
    done = subprocess.run(command, env=without_root, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError(f"{DEPLOYMENTS}: not deployed: {(lines or ['no reason given'])[-1]}")


async def table(client: PrefectClient) -> list[str]:
    """A line per deployment: its queue, its schedule, and its next run."""
    deployments = await client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])))
    lines = []
    for deployment in sorted(deployments, key=lambda deployment: deployment.name):
        active = [schedule for schedule in deployment.schedules if schedule.active]
        when = ", ".join(described(schedule.schedule) for schedule in active) or "by hand or by an event"
        following = await next_run(client, deployment) if active else ""
        lines.append(f"  {deployment.name:<10} {deployment.work_queue_name:<10} {when:<28} {following}")
    return [line.rstrip() for line in lines]


def described(schedule: object) -> str:
    """A schedule as cron expression and time zone, or as interval."""
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    return f"every {getattr(schedule, 'interval', schedule)}"


async def next_run(client: PrefectClient, deployment: DeploymentResponse) -> str:
    """The time of a scheduled deployment's next run; waits up to 15 seconds for the scheduler."""
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
    return "next run not scheduled yet"
