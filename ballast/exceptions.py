"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice

from ballast.io.printable import one_line
from ballast.io.urls import hidden

# Of names that are many or long, such as the columns of another file.
COMPARED_NAMES, SHOWN_NAMES, SHOWN_CHARACTERS = 2000, 30, 100
# What may be otherwise in a while: the request took too long, came too early or too often; or the server has a fault.
TRY_AGAIN = frozenset({408, 425, 429})


class UserError(Exception):
    """Bad input or settings; the message is one printable line that says what was expected, and where.

    It is shown, logged and stored, so that it holds no secrets of URLs.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(hidden(str(message)))

    def __str__(self) -> str:
        return one_line(super().__str__())


class TransientError(UserError):
    """A source outside could not be had; the same command may succeed in a while, so its exit code is TEMPORARY."""


# Of a command that ended with a TransientError: EX_TEMPFAIL of sysexits.h.
TEMPORARY = 75
# Of fsspec, aiohttp, httpx, requests and botocore, none of which may be here; they have no common kind.
OUT_OF_REACH = frozenset(
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
    """An error and what led to it, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The status with which a server answered, as aiohttp, httpx, requests and botocore tell it; None where none did."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(answer, "status_code", None)
    return found if isinstance(found, int) and found >= 100 else None


def is_transient(error: BaseException) -> bool:
    """Whether an error says that something outside was out of reach or had a fault, not that a request was wrong.

    >>> is_transient(ConnectionRefusedError()), is_transient(FileNotFoundError())
    (True, False)
    """
    for each in causes(error):
        status = status_of(each)
        if status is not None:
            return status in TRY_AGAIN or status >= 500
        names = {kind.__name__ for kind in type(each).__mro__}
        if isinstance(each, ConnectionError | TimeoutError) or names & OUT_OF_REACH:
            return True
    return False


def user_error(message: str, cause: BaseException) -> UserError:
    """The error with a message about what another one led to: a transient one where a later try may succeed."""
    return TransientError(message) if is_transient(cause) else UserError(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant: "did you mean 'focal'? known: baseline, focal"."""
    names = sorted(known)
    compared = [each for each in islice(names, COMPARED_NAMES) if len(each) <= 2 * SHOWN_CHARACTERS]
    close = difflib.get_close_matches(name[: 2 * SHOWN_CHARACTERS], compared, n=1)
    shown = [short(each) for each in names[:SHOWN_NAMES]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + (", ".join(shown) or "none") + more


def short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text, where it is long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
