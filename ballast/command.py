"""How every command begins and ends: arguments, one readable line on an error, exit code 1."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable

from ballast.errors import UserError
from ballast.urls import hidden

TRACEBACK = "BALLAST_TRACEBACK"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all commands share."""
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument(
        "--traceback",
        action="store_true",
        default=bool(os.environ.get(TRACEBACK)),
        help=f"on an error print the traceback too (also: {TRACEBACK}=1)",
    )
    return made


def run(main: Callable[..., None], arguments: argparse.Namespace) -> None:
    """Call `main` with the parsed arguments; an error becomes one line on standard error and exit code 1."""
    values = vars(arguments)
    show_traceback = values.pop("traceback")
    try:
        main(**values)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if show_traceback:
            print(hidden(traceback.format_exc()), file=sys.stderr, end="")
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        hint = "" if isinstance(error, UserError) or show_traceback else f" ({TRACEBACK}=1 shows where)"
        sys.exit(f"error: {kind}{' '.join(hidden(str(error)).split())}{hint}")
