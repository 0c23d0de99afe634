"""How every command begins and ends: arguments, one readable line on an error, exit code 1, or 75 for a later try."""

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
    """Tells of wrong arguments as of any other wrong input."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; --help shows what is expected")


def fail(message: str, code: int = 1) -> NoReturn:
    """End this process with one readable line on standard error."""
    print(f"error: {one_line(redact(message))}", file=sys.stderr)
    sys.exit(code)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all commands share."""
    made = Parser(description=(description or "").split("\n\n")[0])
    made.add_argument(
        "--traceback",
        action="store_true",
        default=bool(os.environ.get(TRACEBACK)),
        help=f"on an error print the traceback too (also: {TRACEBACK}=1)",
    )
    return made


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Whatever is printed meanwhile holds data in which a terminal finds nothing to obey."""

    def through(stream: TextIO) -> TextIO:
        return stream if isinstance(stream, PrintableStream) else cast(TextIO, PrintableStream(stream))

    with contextlib.redirect_stdout(through(sys.stdout)), contextlib.redirect_stderr(through(sys.stderr)):
        yield


def run(main: Callable[..., None], arguments: argparse.Namespace) -> None:
    """Call `main` with the parsed arguments; an error becomes one line on standard error and exit code 1.

    A TransientError's exit code is 75: what calls us may try again.
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
            hint = "" if isinstance(error, UserError) or show_traceback else f" ({TRACEBACK}=1 shows where)"
            fail(f"{kind}{one_line(redact(str(error)))}{hint}", TEMPORARY if isinstance(error, TransientError) else 1)
