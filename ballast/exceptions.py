"""Errors that the user can fix, and how to recognise a transient failure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice

from ballast.io.printable import one_line
from ballast.io.urls import redact

# Limits for lists of many or long names, such as the columns of an unexpected file.
COMPARED_NAMES, SHOWN_NAMES, SHOWN_CHARACTERS = 2000, 30, 100
# HTTP statuses that may go away: timeout, too early, too many requests. Server errors are the others.
TRANSIENT_STATUSES = frozenset({408, 425, 429})


class UserError(Exception):
    """Invalid input or settings. The message is one printable line that says what is wrong, where, and what was expected.

    Messages are shown, logged and stored, so secrets of URLs are removed from them.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(str(message)))

    def __str__(self) -> str:
        return one_line(super().__str__())


class ArgumentError(UserError):
    """An argument has an invalid value. The message begins with the argument's name.

    Callers that took the value from settings can prefix the message with the section of the settings.
    """


class DivergedError(ArgumentError):
    """The loss of a training is not finite."""


class TrainingError(UserError):
    """A training failed under the given settings. The message names the arguments to change."""


class TransientError(UserError):
    """An outside source was unavailable. The same command may succeed later, so its exit code is `TEMPORARY`."""


# Exit code of a command that ended with a TransientError: EX_TEMPFAIL of sysexits.h.
TEMPORARY = 75
# Connection errors of fsspec, aiohttp, httpx, requests and botocore, by name: they share no base class, and none of these
# packages is required.
CONNECTION_ERRORS = frozenset(
    {
        "FSTimeoutError",
        "ClientConnectionError",
        "ClientPayloadError",
        "TransportError",
        "ConnectionError",
        "Timeout",
        "HTTPClientError",
        "gaierror",
    }
)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its chain of causes, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def http_status(error: BaseException) -> int | None:
    """HTTP status of an error of aiohttp, httpx, requests or botocore, or None if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) and status >= 100 else None


def is_transient(error: BaseException) -> bool:
    """Whether an error means that an outside service was unreachable or failed, not that the request was wrong.

    >>> is_transient(ConnectionRefusedError()), is_transient(FileNotFoundError())
    (True, False)
    """
    for cause in causes(error):
        status = http_status(cause)
        if status is not None:
            return status in TRANSIENT_STATUSES or status >= 500
        names = {base.__name__ for base in type(cause).__mro__}
        if isinstance(cause, ConnectionError | TimeoutError) or names & CONNECTION_ERRORS:
            return True
    return False


def user_error(message: str, cause: BaseException) -> UserError:
    """A UserError with this message, or a TransientError if `cause` is transient."""
    return TransientError(message) if is_transient(cause) else UserError(message)


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Suggest a valid name for an unknown one: "did you mean 'focal'? known: baseline, focal"."""
    names = sorted(valid)
    compared = [valid_name for valid_name in islice(names, COMPARED_NAMES) if len(valid_name) <= 2 * SHOWN_CHARACTERS]
    close = difflib.get_close_matches(name[: 2 * SHOWN_CHARACTERS], compared, n=1)
    shown = [short(valid_name) for valid_name in names[:SHOWN_NAMES]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + (", ".join(shown) or "none") + more


def short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text: at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
