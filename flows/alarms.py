"""Report changes in production: to Prefect's automations by an event, and to people by the webhook of params.yaml."""

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
# At lower levels these libraries log the address.
for library in ("httpx", "httpcore"):
    logging.getLogger(library).setLevel(logging.WARNING)
# Namespace of event ids: events of the same window and decision have the same id, wherever they are emitted.
NAMESPACE = UUID("5d0c6f5a-2f3f-4f0e-9a53-4f1b8f6f7c11")


def logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The logger of the current run, or a general one outside a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("ballast")


def notify(
    event: str, resource: str, payload: Mapping[str, Any], *, labels: Mapping[str, str] | None = None, id: UUID | None = None
) -> None:
    """Emit an event about a resource, such as ballast.model.0003, and post it to `production.webhook`, if that is set.

    labels : labels of the resource, which a deployment's trigger can match.
    id : id of the event; Prefect accepts an equal id only once in half an hour.

    Failures are logged as warnings: a flow does not fail because a notification is lost.
    """
    payload = dict(printable_values(dict(payload)))
    emit_event(event, printable_values({"prefect.resource.id": resource, **(labels or {})}), payload=payload, id=id)
    url = webhook(production().get("webhook"))
    if url is None:
        return
    # Chat programs show `text`. Tables would fill the screen, and the payload has them.
    lines = {key: value for key, value in payload.items() if not is_table(value)}
    summary = ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in lines.items())
    message = {"text": f"{event}: {summary}", "event": event, "resource": resource, "labels": labels or {}, "payload": payload}
    try:
        # A redirect would send the payload to another address.
        httpx.post(url, json=message, timeout=TIMEOUT_SECONDS, follow_redirects=False).raise_for_status()
    except httpx.HTTPStatusError as error:
        # Without the error's text, because the address is a secret.
        logger().warning("the webhook did not accept %s: status %d", event, error.response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, TypeError, ValueError) as error:
        logger().warning("the webhook could not be notified of %s: %s", event, type(error).__name__)


def is_table(value: Any) -> bool:
    """Whether a JSON value is a mapping that holds other mappings.

    >>> is_table({"metrics": {"spam.recall": 0.9}}), is_table({"ham": 0.9, "spam": 0.1})
    (True, False)
    """
    return isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values())


def webhook(setting: str | None) -> str | None:
    """The address in the environment variable `$NAME` or the file `file:PATH`; None, after a warning, if there is none.

    params.yaml itself may only hold the address of a host without a path: git tracks that file, and everyone who knows the
    full address of a webhook can write to it.
    """
    if setting is None:
        return None
    try:
        url = address(setting)
    except UserError as error:
        logger().warning("production.webhook: %s; no notification was sent", error)
        return None
    if not url.startswith(("http://", "https://")):
        logger().warning("production.webhook: expected an address with http:// or https://; no notification was sent")
        return None
    return url


def address(setting: str) -> str:
    """The address for a value of `production.webhook`; raises UserError."""
    if setting.startswith("$"):
        if value := os.environ.get(setting[1:], "").strip():
            return value
        raise UserError(f"the environment variable {setting[1:]} is not set")
    if not setting.startswith(FILE):
        if bare_address(setting):
            return setting
        raise UserError(
            "an address is a secret; put it into an environment variable and write $NAME, or into a file and write file:PATH"
        )
    path = Path(setting.removeprefix(FILE))
    if not regular_file(path):
        raise UserError(f"{path}: no such file")
    if open_to_others(path):
        logger().warning("production.webhook: users other than the owner can read %s; run `chmod 600 %s`", path, path)
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {type(error).__name__}") from error
