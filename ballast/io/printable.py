"""Text for people and logs: what a terminal would obey, or nobody would see, is shown as its escape."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TextIO

# Control characters, format characters such as those that turn the direction of a text, lone surrogates, ends of lines.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
SUSPECT = re.compile(r"[^ -~]")
# A line is for reading: a longer one loses its middle, for it begins with what is wrong and ends with what to do.
LONGEST_LINE = 1000
# Of a run, in lists and headings.
LONGEST_TITLE = 200
# What a progress bar sends before its state, and alone to go up or down a line.
RETURN, UP = "\r", re.compile(r"(\x1b\[A)+|\r")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with what is not to be seen as its escape; with `lines`, tabs and ends of lines stay as they are.

    Doing it again changes nothing.

    >>> print(printable("a\x1b[31mb\u202e\ud800\0"))
    a\x1b[31mb\u202e\ud800\x00
    """
    if text.isascii() and text.isprintable():
        return text

    def shown(found: re.Match[str]) -> str:
        character = found[0]
        if (lines and character in "\n\t") or unicodedata.category(character) not in UNSEEN:
            return character
        return character.encode("unicode_escape").decode()

    return SUSPECT.sub(shown, text)


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """The text as a line of at most so many characters, of which a longer text loses those in the middle.

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
    """Plain values as JSON has them with all their texts printable, keys too; ends of lines stay."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(each) for each in value]
    return value


class PrintableStream:
    """A text stream through which only printable text gets, and the movements of a progress bar."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; a progress bar begins with a return, or goes up by a text of its own."""
        if UP.fullmatch(text):
            return self._stream.write(text)
        begin = RETURN if text.startswith(RETURN) else ""
        # A bar that is removed ends with a return after blanks.
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
