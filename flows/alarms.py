"""Tell Prefect's automations, by an event, and people, by the webhook of params.yaml, what happened in production."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from flows.settings import production

TIMEOUT_SECONDS = 10.0
# Of this project's events: an event of the same window and decision has the same id wherever it is emitted.
NAMESPACE = UUID("5d0c6f5a-2f3f-4f0e-9a53-4f1b8f6f7c11")


def logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The log of the run that this is part of, if any."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("ballast")


def tell(
    event: str, resource: str, payload: Mapping[str, Any], *, labels: Mapping[str, str] | None = None, id: UUID | None = None
) -> None:
    """Emit an event about a resource, such as ballast.model.0003, and post it to `production.webhook`, if that is set.

    labels : of the resource; a deployment's trigger can match them.
    id : of the event; Prefect takes an equal id only once in half an hour.

    Nobody listening is no reason for a flow to fail: what goes wrong is a warning in the log.
    """
    emit_event(event, {"prefect.resource.id": resource, **(labels or {})}, payload=dict(payload), id=id)
    url = webhook(production().get("webhook"))
    if url is None:
        return
    # `text` is what chat programs show.
    said = ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in payload.items())
    message = {"text": f"{event}: {said}", "event": event, "resource": resource, "labels": labels or {}, "payload": payload}
    try:
        httpx.post(url, json=message, timeout=TIMEOUT_SECONDS, follow_redirects=True).raise_for_status()
    except httpx.HTTPStatusError as error:
        # Not its text: the address may hold a secret.
        logger().warning("the webhook was not told of %s: it answered %d", event, error.response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, TypeError, ValueError) as error:
        logger().warning("the webhook was not told of %s: %s", event, type(error).__name__)


def webhook(setting: str | None) -> str | None:
    """The address that a setting means: itself, or the environment variable that `$NAME` names; None where nothing is set."""
    if setting is None or not setting.startswith("$"):
        return setting
    found = os.environ.get(setting[1:])
    if not found:
        logger().warning("production.webhook is %s, but the environment has no such variable; nobody was told", setting)
    return found or None
