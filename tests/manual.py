"""The code blocks of Markdown pages: parsed, and their commands checked without running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs.generate.commands import parser_of, targets
from tests.project import ROOT, Project, yaml

# A comment before a block says what a run of the page does with it.
BLOCK = re.compile(
    r"^(?:<!-- (?P<note>file: \S+|not executed) -->\n)?^ *```(?P<language>[\w-]+)\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z][A-Z_]*=.*")
OPERATORS, REDIRECTIONS = {"|", "&&", ";", "&"}, {">", ">>", "<"}
# Programs of the system, whose arguments are not ours to check.
SYSTEM = {
    "cat",
    "cd",
    "cp",
    "curl",
    "docker",
    "echo",
    "git",
    "head",
    "kubectl",
    "ls",
    "mkdir",
    "pip",
    "pre-commit",
    "scp",
    "sed",
    "source",
    "ssh",
    "xdg-open",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and text, the line where it begins, and the note before it."""

    language: str
    text: str
    line: int
    note: str


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page in some languages."""
    return [
        Block(match["language"], match["body"], page.count("\n", 0, match.start("language")) + 1, match["note"] or "")
        for match in BLOCK.finditer(page)
        if match["language"] in languages
    ]


def executes(page: str) -> bool:
    """Whether the front matter of a page says `execute: true`."""
    front = FRONT_MATTER.match(page)
    return front is not None and re.search(r"^execute: true$", front[1], re.MULTILINE) is not None


def commands(block: Block) -> list[str]:
    """The commands after the prompts of a console block, with continued lines joined; what is printed is left out."""
    joined = block.text.replace("\\\n", " ")
    return [line.strip()[2:] for line in joined.splitlines() if line.strip().startswith("$ ")]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys; what is below the second level is replaced as a whole."""
    keys: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and prefix.count(".") < 2:
            keys |= flat(value, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = value
    return keys


def execute(page: str, project: Project, name: str) -> None:
    """Do what a page says: write its files, edit params.yaml by its settings, run its commands."""
    for block in blocks(page, "text", "yaml", "console"):
        if block.note.startswith("file: "):
            project.write(block.note.removeprefix("file: "), block.text.encode())
        elif block.language == "yaml":
            project.edit(flat(yaml.load(block.text)))
        elif block.language == "console" and block.note != "not executed":
            for line in commands(block):
                done = project.run("bash", "-c", line)
                assert done.code == 0, f"{name}:{block.line}: {line}\n{done.stdout}\n{done.stderr}"


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without assignments of variables and without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in REDIRECTIONS:
            next(lexer)
        elif word in OPERATORS:
            found.append([])
        elif found[-1] or not ASSIGNMENT.fullmatch(word):
            found[-1].append(word)
    return [words for words in found if words]


def check_module(module: str, arguments: list[str]) -> None:
    """Fail unless `python -m module` exists and takes the arguments."""
    if module == "pytest":
        assert all((ROOT / path).exists() for path in arguments if "/" in path), arguments
        return
    if module in {"pip", "venv"}:
        return
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file(), f"no module {module}"
    parser_of(module).parse_args(arguments)


def check_make(arguments: list[str]) -> None:
    """Fail unless the Makefile has the targets and reads the variables."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for argument in arguments:
        name, is_variable, _ = argument.partition("=")
        if is_variable:
            assert re.search(rf"\$\({name}\)|^{name} :=", makefile, re.MULTILINE), f"the Makefile has no variable {name}"
        else:
            assert name in targets(ROOT), f"the Makefile has no target {name}"


def check_dvc(arguments: list[str]) -> None:
    """Fail unless `dvc` takes the arguments."""
    from dvc.cli.parser import get_main_parser

    get_main_parser().parse_args(arguments)


def check_command(line: str, where: str) -> None:
    """Fail unless every program of a command line exists and takes its arguments."""
    for program, *arguments in simple_commands(line):
        try:
            if program in {"python", "python3"} and arguments[:1] == ["-m"]:
                check_module(arguments[1], arguments[2:])
            elif program == "make":
                check_make(arguments)
            elif program == "dvc":
                check_dvc(arguments)
            else:
                assert program in SYSTEM | {"python"} or Path(program).suffix == ".sh", f"unknown program {program}"
        # Parsers of arguments end the process or raise errors of their own.
        except (Exception, SystemExit) as error:
            pytest.fail(f"{where}: {line}: {error}")
