"""Failed commands as users see them: one readable line, without a traceback, and the last lines of the output."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from ballast.exceptions import TEMPORARY, UserError
from ballast.io.printable import printable
from ballast.io.urls import redact

INTERRUPTED = "error: interrupted; completed work is saved, and the same command resumes it"
# stop_commands sends SIGTERM first, so SIGKILL comes from the kernel when memory runs out. A shell adds 128.
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
# Lines of DVC that say only that something failed.
UNINFORMATIVE = ("ERROR: failed to reproduce", "Having any troubles?")
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class StageFailed(Exception):  # noqa: N818
    """The command of a stage failed. `headline` is one line for a terminal; `str` adds the last lines of the output.

    Parameters
    ----------
    stage : name of the stage.
    code : exit code of the command; the negative signal number if a signal ended it.
    lines : last lines of the output.
    missing : outputs that DVC could not restore.
    """

    def __init__(self, stage: str, code: int, lines: Sequence[str], missing: Sequence[str] = ()) -> None:
        super().__init__(stage, code, lines, missing)
        self.stage, self.code, self.lines, self.missing = stage, code, lines, missing

    @property
    def headline(self) -> str:
        """The stage, its exit code, and the line of the output that gives the reason."""
        if self.code in KILLED:
            return f"stage {self.stage} was killed (exit code {self.code}), most likely because memory ran out"
        errors = [line for line in self.lines if line.startswith("error: ")]
        informative = [line for line in self.lines if not line.startswith(UNINFORMATIVE)]
        reason = (errors or informative or list(self.lines) or ["no output"])[-1].removeprefix("error: ")
        return f"stage {self.stage} failed with exit code {self.code}: {reason}"

    @property
    def transient(self) -> bool:
        """Whether the same command may succeed later: it was killed, or its exit code says that the failure is temporary."""
        return self.code in KILLED or self.code == TEMPORARY

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.lines])

    def __repr__(self) -> str:
        return f"StageFailed({self.headline!r})"


def one_line_of(error: Exception) -> str:
    """An error in one line."""
    return error.headline if isinstance(error, StageFailed) else str(error)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Wrap the main function of a flow: print the last lines of a failed stage, then raise UserError with the headline."""
    hide_tracebacks()
    try:
        with explained_api_errors():
            yield
    except StageFailed as failure:
        print(*(f"  {line}" for line in failure.lines), sep="\n", file=sys.stderr)
        raise UserError(failure.headline) from failure
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        # Prefect logs while the process ends; our line must be the last one.
        logging.disable(logging.WARNING)


@contextmanager
def explained_api_errors() -> Iterator[None]:
    """Raise UserError with the setting to change when a Prefect server rejects our credentials."""
    try:
        yield
    except PrefectHTTPStatusError as error:
        url, status = PREFECT_API_URL.value(), error.response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            raise UserError(
                f"{url}: the Prefect server rejects the auth string; set PREFECT_API_AUTH_STRING to its user:password"
                " (for `make serve`, the content of production/prefect/auth_string in its checkout)"
            ) from error
        if status == HTTPStatus.FORBIDDEN:
            raise UserError(
                f"{url}: the Prefect server refuses this client ({error.response.text.strip()[:200]});"
                " if the server requires CSRF tokens, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED must not be false"
            ) from error
        raise


def exit_now(code: int) -> None:
    """End this process without cleanup."""
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(code)


def hide_tracebacks() -> None:
    """Make Prefect log StageFailed and UserError without a traceback in this process."""
    for name in RUN_LOGGERS:
        logging.getLogger(name).addFilter(_without_traceback)


def printable_error(error: Exception) -> Exception:
    """The error, or a UserError with its message escaped if it has control characters.

    Prefect stores the message as the state of a run, and PostgreSQL rejects a NUL, so that the run would end with an error of
    the server instead.
    """
    message = str(error)
    return error if printable(message, lines=True) == message else UserError(f"{type(error).__name__}: {message}")


def escape_logs() -> None:
    """Make Prefect escape unprintable characters in its logs in this process, in tracebacks too."""
    for name in RUN_LOGGERS:
        logging.getLogger(name).addFilter(_escaped)


def _escaped(record: logging.LogRecord) -> bool:
    """Escape the message and the traceback of a log record."""
    record.msg, record.args = printable(record.getMessage(), lines=True), ()
    if record.exc_info and not record.exc_text:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        # Formatters take the text instead of the exception.
        record.exc_text = printable(redact(text), lines=True)
    return True


def _without_traceback(record: logging.LogRecord) -> bool:
    """Remove the traceback of an error that explains itself."""
    if record.exc_info and isinstance(record.exc_info[1], StageFailed | UserError):
        record.exc_info = record.exc_text = None
    return True
