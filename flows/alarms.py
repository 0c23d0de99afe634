"""Tell Prefect's automations, by an event, and people, by the webhook of params.yaml, what happened in production."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from ballast.exceptions import UserError
from ballast.io.paths import open_to_others, regular_file
from ballast.io.printable import printable_values
from ballast.io.urls import bare_address
from flows.settings import production

TIMEOUT_SECONDS = 10.0
FILE = "file:"
# At lower levels they log the address.
for library in ("httpx", "httpcore"):
    logging.getLogger(library).setLevel(logging.WARNING)
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
    payload = dict(printable_values(dict(payload)))
    emit_event(event, printable_values({"prefect.resource.id": resource, **(labels or {})}), payload=payload, id=id)
    url = webhook(production().get("webhook"))
    if url is None:
        return
    # `text` is what chat programs show.
    said = ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in payload.items())
    message = {"text": f"{event}: {said}", "event": event, "resource": resource, "labels": labels or {}, "payload": payload}
    try:
        # Another address would get what this one is trusted with.
        httpx.post(url, json=message, timeout=TIMEOUT_SECONDS, follow_redirects=False).raise_for_status()
    except httpx.HTTPStatusError as error:
        # Not its text: the address is a secret.
        logger().warning("the webhook was not told of %s: it answered %d", event, error.response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, TypeError, ValueError) as error:
        logger().warning("the webhook was not told of %s: %s", event, type(error).__name__)


def webhook(setting: str | None) -> str | None:
    """The address that the environment variable `$NAME` or the file `file:PATH` holds; None where there is none.

    An address in params.yaml is taken only if it is that of a host: whoever knows the path of another one can write there, and
    git tracks that file.
    """
    if setting is None:
        return None
    try:
        found = address(setting)
    except UserError as error:
        logger().warning("production.webhook: %s; nobody was told", error)
        return None
    if not found.startswith(("http://", "https://")):
        logger().warning("production.webhook: its address is not one of http or https; nobody was told")
        return None
    return found


def address(setting: str) -> str:
    """What a setting leads to; raises UserError."""
    if setting.startswith("$"):
        if found := os.environ.get(setting[1:], "").strip():
            return found
        raise UserError(f"the environment has no variable {setting[1:]}")
    if not setting.startswith(FILE):
        if bare_address(setting):
            return setting
        raise UserError(
            "an address is a secret; put it into a variable of the environment and write $NAME, or into a file: file:PATH"
        )
    path = Path(setting.removeprefix(FILE))
    if not regular_file(path):
        raise UserError(f"{path}: no such file")
    if open_to_others(path):
        logger().warning("production.webhook: others than its owner may read %s; run `chmod 600 %s`", path, path)
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {type(error).__name__}") from error
