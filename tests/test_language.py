"""Shown text is plain English: docstrings, messages, pages, settings and documents avoid the phrases of this list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import ROOT

# Phrase -> what to write instead.
INSTEAD = {
    r"\ban own\b": "its own, a separate",
    r"\banew\b": "again",
    r"\bas (?:it|they) stands?\b": "unchanged, as is",
    r"\bbut for\b": "except",
    r"\bcomes? again\b": "is a duplicate",
    r"\bdealt (?:out|with)\b": "assigned, handled",
    r"\bgave occasion\b": "triggered",
    r"\bgone back from\b": "rolled back",
    r"\bin (?:its|their) stead\b": "instead",
    r"(?<!there )\bis none\b": "is not one",
    r"\blean(?:s|ed)? (?:up|down)wards?\b": "is optimistic, is pessimistic",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\b(?:is|are|was|were) not there\b": "is missing, does not exist, is not available",
    r"\bnobody (?:has|is|can|would)\b": "no one, or name the subject",
    r"(?:^|(?<=[.;] ))Of (?:what|which|those|these|it|them|one|a|an|the) [a-z]": "begin with the subject",
    r"\bof which\b": "split the sentence",
    r"\bperson refused\b": "rejected by a reviewer",
    r"\bspoil(?:s|t|ed)?\b": "damaged, corrupt",
    r"\bsur(?:est|er)\b": "most confident, more certain",
    r"\bthat what\b": "split the sentence",
    r"\bthere its\b": "at this threshold",
    r"\bthrice\b": "three times",
    r"\btold\b": "reported, given",
    r"\bwhat is done\b": "name it: fallback, action",
    r"\bwhat stands\b": "the content",
    r"\bwould do\b": "at least ... are needed",
}
FORBIDDEN = re.compile("|".join(f"(?:{phrase})" for phrase in INSTEAD))
# Code in documents and templates.
CODE = re.compile(r"```.*?```|`[^`\n]*`|\{%.*?%\}|\{\{.*?\}\}|<(?:script|style).*?</(?:script|style)>", re.DOTALL)
ROOMS = ("ballast", "stages", "flows", "benchmarks")


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and other strings of a Python file, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line.strip()


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """Comments of a Python or YAML file, with their lines."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if comment := re.search(r"(?:^|\s)# (.*)", line):
            yield number, comment[1]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a template or document, without code and Jinja tags."""
    text = CODE.sub(hide, path.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), 1):
        yield number, line.strip()


def hide(code: re.Match[str]) -> str:
    """The line breaks of a match."""
    return "\n" * code[0].count("\n")


def shown(root: Path) -> Iterator[tuple[str, int, str]]:
    """All text that users or developers read: file, line number and line."""
    python = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    settings = [root / "params.yaml", root / "dvc.yaml", *sorted((root / "studies").glob("*/*.yaml"))]
    pages = [
        *sorted((root / "stages").rglob("*.html")),
        *sorted((root / "stages").rglob("*.md")),
        *sorted(root.glob("*.md")),
        *sorted((root / "infra").glob("*.md")),
        *sorted((root / "docs").rglob("*.md")),
    ]
    readers = [(strings_of, python), (comments_of, [*python, *settings]), (lines_of, [*settings, *pages])]
    for reader, paths in readers:
        for path in paths:
            if "_build" not in path.parts:
                yield from ((path.relative_to(root).as_posix(), number, line) for number, line in reader(path))


def test_shown_text_avoids_the_listed_phrases() -> None:
    wrong = sorted(
        {
            f"{file}:{number}: {match[0]!r} (write: {instead}): {line}"
            for file, number, line in shown(ROOT)
            if FORBIDDEN.search(line)
            for phrase, instead in INSTEAD.items()
            if (match := re.search(phrase, line))
        }
    )
    assert not wrong, f"{len(wrong)} phrases to replace\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("The file is spoilt.", False),
        ("Of the texts only the first is read.", False),
        ("3 of the texts are read.", True),
        ("The model is trained again.", True),
        ("It was told.", False),
    ],
)
def test_the_list_finds_phrases(line: str, allowed: bool) -> None:
    assert (FORBIDDEN.search(line) is None) == allowed
