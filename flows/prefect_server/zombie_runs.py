"""Automations of Prefect that call a run crashed which nobody is left to end."""

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

# After three silent turns a run is lost.
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
# From the worker's claim to the flow's first line it takes five seconds; a machine may be busy.
BEGIN_SECONDS = 600
# The events of a run that goes on, or waits as it should.
ALIVE = {"heartbeat", "Paused", "Suspended"}
# What is said of a run whose watch begins anew.
WATCHED = {StateType.RUNNING: "heartbeat", StateType.PENDING: "Pending"}


def zombie_run_automations() -> list[AutomationCore]:
    """The automations that call a run crashed when it no longer says that it goes on, or never began.

    A worker or a machine that was killed cannot say so, and the run would keep its place in the queue for ever.
    """
    unbegun = f"it did not begin within {BEGIN_SECONDS} s: its worker was killed"
    return [
        silent_run_automation(),
        crash_when_missing(
            "ballast: runs that never begin", {"Pending", "Submitting"}, ALIVE | {"Running"}, BEGIN_SECONDS, unbegun
        ),
    ]


def silent_run_automation(deployment: UUID | None = None) -> AutomationCore:
    """The automation that calls a run, of a deployment or any, crashed when it no longer says that it goes on."""
    message = f"it was silent for {SILENT_SECONDS} s: its process or its machine was killed"
    name, of = "ballast: silent runs have crashed", {}
    if deployment is not None:
        name += f", deployment {deployment}"
        of = {"prefect.resource.role": "deployment", "prefect.resource.id": f"prefect.deployment.{deployment}"}
    return crash_when_missing(name, {"Running", "heartbeat"}, ALIVE, SILENT_SECONDS, message, of)


def crash_when_missing(
    name: str, after: set[str], expect: set[str], seconds: int, message: str, of: Mapping[str, str] | None = None
) -> AutomationCore:
    """An automation: a run that after one event shows for some seconds neither of others, nor an end, has crashed."""
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
    """What all runs in a state have in common."""
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])))


async def restart_monitoring(client: PrefectClient) -> None:
    """Have the automations watch all runs from now on that have begun or are about to; those that live go on saying so.

    A server that was killed forgets what it heard last, and one that was away for minutes what it should have noticed then.
    """
    async with get_events_client() as events:
        for state, said in WATCHED.items():
            for run in await client.read_flow_runs(flow_run_filter=in_state(state)):
                resource = Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name})
                await events.emit(Event(event=f"prefect.flow-run.{said}", resource=resource))
