"""Printable text for people and logs: control and invisible characters are escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TextIO

# Control characters, format characters such as those that reverse the direction of text, lone surrogates, line separators.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
SUSPECT = re.compile(r"[^ -~]")
# A longer line loses its middle: it begins with the problem and ends with the remedy.
LONGEST_LINE = 1000
# Length of the name of a run, in lists and headings.
LONGEST_TITLE = 200
# Control sequences of progress bars: before their state, or alone to move up or down a line.
RETURN, UP = "\r", re.compile(r"(\x1b\[A)+|\r")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Escape control and invisible characters. With `lines`, tabs and line breaks stay.

    The function is idempotent.

    >>> print(printable("a\x1b[31mb\u202e\ud800\0"))
    a\x1b[31mb\u202e\ud800\x00
    """
    if text.isascii() and text.isprintable():
        return text

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if (lines and character in "\n\t") or unicodedata.category(character) not in UNSEEN:
            return character
        return character.encode("unicode_escape").decode()

    return SUSPECT.sub(escaped, text)


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """The text as one printable line of at most `most` characters. A longer text loses its middle.

    >>> one_line("a  line   of words")
    'a line of words'
    >>> one_line("abc" * 50, 60)
    'abcabcabcabcabcabc ... (114 left out) ... abcabcabcabcabcabc'
    """
    line = printable(" ".join(text.split()))
    if len(line) <= most:
        return line
    room = most - len(" ... ( left out) ... ") - len(str(len(line)))
    begin, end = line[: room // 2], line[-(room - room // 2) :]
    return f"{begin} ... ({len(line) - len(begin) - len(end)} left out) ... {end}"


def printable_values(value: Any) -> Any:
    """JSON values with all strings printable, including keys. Line breaks stay."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value


class PrintableStream:
    """A text stream that escapes its text, except for the control sequences of progress bars."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text. Progress bars begin with a carriage return, or write cursor movements on their own."""
        if UP.fullmatch(text):
            return self._stream.write(text)
        begin = RETURN if text.startswith(RETURN) else ""
        # A bar is erased with blanks and a carriage return.
        end = RETURN if text.endswith(" " + RETURN) else ""
        inside = text[len(begin) : len(text) - len(end)]
        self._stream.write(begin + printable(inside, lines=True) + end)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the singular for one.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def trainings_in_words(about: Mapping[str, Any]) -> str:
    """Which trainings of a technique are deployed, from a manifest or a selection.

    >>> trainings_in_words({"seed": 0}), trainings_in_words({"seeds": [0, 1, 2]})
    ('seed 0', 'mean of the seeds 0, 1, 2')
    """
    if "seeds" in about:
        return f"mean of the seeds {', '.join(map(str, about['seeds']))}"
    return f"seed {about['seed']}"
