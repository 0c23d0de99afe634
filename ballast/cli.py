"""Shared behaviour of all commands: arguments, one line per error, exit code 1, or 75 for transient errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn, TextIO, cast

from ballast.exceptions import TEMPORARY, TransientError, UserError
from ballast.io.printable import PrintableStream, one_line
from ballast.io.urls import redact

TRACEBACK = "BALLAST_TRACEBACK"


class Parser(argparse.ArgumentParser):
    """A parser that reports invalid arguments like other invalid input."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see --help")


def fail(message: str, code: int = 1) -> NoReturn:
    """Exit with one line on standard error."""
    print(f"error: {one_line(redact(message))}", file=sys.stderr)
    sys.exit(code)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of all commands."""
    command_parser = Parser(description=(description or "").split("\n\n")[0])
    command_parser.add_argument(
        "--traceback",
        action="store_true",
        default=bool(os.environ.get(TRACEBACK)),
        help=f"print the traceback of an error (also: {TRACEBACK}=1)",
    )
    return command_parser


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Escape control characters in all output, since it may contain data."""

    def through(stream: TextIO) -> TextIO:
        return stream if isinstance(stream, PrintableStream) else cast(TextIO, PrintableStream(stream))

    with contextlib.redirect_stdout(through(sys.stdout)), contextlib.redirect_stderr(through(sys.stderr)):
        yield


def run(main: Callable[..., None], arguments: argparse.Namespace) -> None:
    """Call `main` with the parsed arguments. An error becomes one line on standard error and exit code 1.

    The exit code of a TransientError is 75: the caller may try again.
    """
    values = vars(arguments)
    show_traceback = values.pop("traceback")
    with printable_output():
        try:
            main(**values)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if show_traceback:
                print(redact(traceback.format_exc()), file=sys.stderr, end="")
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            hint = "" if isinstance(error, UserError) or show_traceback else f" (set {TRACEBACK}=1 for the traceback)"
            fail(f"{kind}{one_line(redact(str(error)))}{hint}", TEMPORARY if isinstance(error, TransientError) else 1)
