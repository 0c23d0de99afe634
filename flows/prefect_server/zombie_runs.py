"""Prefect automations that mark zombie runs as crashed. Their process or worker was killed and cannot report it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.events import Event
from prefect.events.actions import ChangeFlowRunState
from prefect.events.clients import get_events_client
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import Resource, ResourceSpecification

from flows import HEARTBEAT_SECONDS

# A run without a heartbeat for this time, three intervals, has crashed.
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
# From the worker's claim to the first line of the flow. Usually five seconds, more on a busy machine.
BEGIN_SECONDS = 600
# Events of a run that makes progress or waits on purpose.
ALIVE = {"heartbeat", "Paused", "Suspended"}
# Events that restart the monitoring of a run, by its state.
MONITORED = {StateType.RUNNING: "heartbeat", StateType.PENDING: "Pending"}


def zombie_run_automations() -> list[AutomationCore]:
    """Automations that mark runs without heartbeats, and runs that never start, as crashed.

    A killed worker or machine cannot report the end of its run, which would keep its place in the queue forever.
    """
    never_started = f"it did not start within {BEGIN_SECONDS} s: its worker was killed"
    return [
        silent_run_automation(),
        crash_when_missing(
            "ballast: runs that never begin", {"Pending", "Submitting"}, ALIVE | {"Running"}, BEGIN_SECONDS, never_started
        ),
    ]


def silent_run_automation(deployment: UUID | None = None) -> AutomationCore:
    """An automation that marks runs without heartbeats as crashed, of one deployment or of all."""
    message = f"it was silent for {SILENT_SECONDS} s: its process or its machine was killed"
    name, of = "ballast: silent runs have crashed", {}
    if deployment is not None:
        name += f", deployment {deployment}"
        of = {"prefect.resource.role": "deployment", "prefect.resource.id": f"prefect.deployment.{deployment}"}
    return crash_when_missing(name, {"Running", "heartbeat"}, ALIVE, SILENT_SECONDS, message, of)


def crash_when_missing(
    name: str, after: set[str], expect: set[str], seconds: int, message: str, of: Mapping[str, str] | None = None
) -> AutomationCore:
    """An automation: mark a run as crashed if none of the expected events, nor its end, follows an event within some seconds.

    of : labels of a related resource, such as a deployment, to which the automation is limited.
    """
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={f"prefect.flow-run.{event}" for event in after},
        expect={f"prefect.flow-run.{event}" for event in expect | {"Completed", "Failed", "Cancelled", "Crashed"}},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(dict(of or {})),
        for_each={"prefect.resource.id"},
        within=timedelta(seconds=seconds),
    )
    crash = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    return AutomationCore(name=name, trigger=trigger, actions=[crash])


def in_state(state: StateType) -> FlowRunFilter:
    """A filter for runs in a state."""
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])))


async def restart_monitoring(client: PrefectClient) -> None:
    """Restart the monitoring of all running and pending runs; those that are alive keep sending events.

    A server that was killed has lost its last events, and one that was down for minutes has missed timeouts.
    """
    async with get_events_client() as events:
        for state, event in MONITORED.items():
            for run in await client.read_flow_runs(flow_run_filter=in_state(state)):
                resource = Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name})
                await events.emit(Event(event=f"prefect.flow-run.{event}", resource=resource))
