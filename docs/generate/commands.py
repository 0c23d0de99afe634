"""The reference of commands: the targets of the Makefile, and the arguments of every module that runs as a command."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

# "name: needs   ## description"
TARGET = re.compile(r"^(?P<name>[a-z][a-z-]*):[^#\n]*?(?:##\s*(?P<text>.*))?$", re.MULTILINE)
WIDTH = 100
# Options of all commands, with the lines that their help is wrapped to; the page names them once.
COMMON = re.compile(r"^  (?:-h, --help|--traceback) .*\n(?: {10,}.*\n)*|(?: \[-h\]| \[--traceback\])", re.MULTILINE)
EMPTY = re.compile(r"^options:\n(?=\n|\Z)", re.MULTILINE)


class Parsed(Exception):  # noqa: N818
    """Carries the parser of a command to `parser_of`; not an error."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def raise_parsed(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
    """Stand in for `parse_args`, so that a command ends before it does anything."""
    raise Parsed(parser)


@contextmanager
def program(name: str) -> Iterator[None]:
    """Let argparse take a name as that of the program."""
    with mock.patch.object(sys, "argv", [name]):
        yield


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of `python -m module`; raises LookupError for a module that is no command."""
    with (
        program(f"python -m {module}"),
        mock.patch.object(argparse.ArgumentParser, "parse_args", raise_parsed),
        warnings.catch_warnings(),
    ):
        # runpy warns about a module that is imported already, and libraries warn about each other.
        warnings.simplefilter("ignore")
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except Parsed as parsed:
            parsed.parser.prog = f"python -m {module}"
            return parsed.parser
    raise LookupError(f"{module} parses no arguments")


def commands(root: Path, room: str) -> list[str]:
    """The modules of a room that run as commands and take arguments, in the order of their names."""
    paths = sorted((root / room).rglob("*.py"))
    main = re.compile(r'^if __name__ == "__main__":\n.*\.parse_args\(', re.MULTILINE | re.DOTALL)
    return [
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in paths
        if main.search(path.read_text(encoding="utf-8"))
    ]


def targets(root: Path) -> dict[str, str]:
    """Map the targets of the Makefile to their descriptions, which may be empty."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    return {match["name"]: match["text"] or "" for match in TARGET.finditer(text)}


def targets_table(root: Path) -> str:
    """The targets of the Makefile that have a description."""
    rows = [f"| `make {name}` | {text} |" for name, text in targets(root).items() if text]
    return "\n".join(["| target | does |", "|---|---|", *rows])


def command_section(module: str) -> str:
    """The help of one command as a Markdown section, without the options that all commands share."""
    parser = parser_of(module)
    with mock.patch.dict("os.environ", {"COLUMNS": str(WIDTH)}):
        text = COMMON.sub("", parser.format_help())
    return f"### {module}\n\n```text\n{EMPTY.sub('', text).rstrip()}\n```\n"


def commands_of(root: Path, room: str) -> str:
    """The help of all commands of a room."""
    return "\n".join(map(command_section, commands(root, room)))


def flow_commands(root: Path) -> str:
    """The help of the commands in `flows/`."""
    return commands_of(root, "flows")


def stage_commands(root: Path) -> str:
    """The help of the commands in `stages/`."""
    return commands_of(root, "stages")
