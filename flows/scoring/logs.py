"""Structured logs: one JSON object per line on standard error, without texts of messages."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ballast.io.printable import one_line
from ballast.io.urls import redact


def log(event: str, **values: Any) -> None:
    """Write a line: the time, the event and its values."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
    cleaned = {key: one_line(redact(value)) if isinstance(value, str) else value for key, value in line.items()}
    # One write, so that lines of several threads do not mix.
    sys.stderr.write(json.dumps(cleaned) + "\n")
    sys.stderr.flush()


class JsonHandler(logging.Handler):
    """Writes the records of libraries as such lines. The words of an exception may hold a text, so only its type is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        error = {"error": record.exc_info[0].__name__} if record.exc_info and record.exc_info[0] else {}
        log("library", level=record.levelname.lower(), name=record.name, message=record.getMessage(), **error)


def log_as_json() -> None:
    """Send the records of all libraries to standard error as JSON."""
    logging.basicConfig(level=logging.INFO, handlers=[JsonHandler()], force=True)
