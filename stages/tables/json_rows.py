"""Rows of JSON: one object per line, or arrays of objects and objects one after the other; numbers keep their digits."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ballast.exceptions import UserError
from stages.tables.lines import LONGEST_LINE, TOO_LONG, Lines, LongLine
from stages.tables.rows import EXCERPT, Row, check_columns, excerpt, is_utf8

# Key names to remember, from which an error suggests the nearest.
KNOWN_NAMES = 100
CHUNK = 1 << 20
BETWEEN = re.compile(r"[ \t\r\n,]*")


class Ambiguous(dict[str, Any]):
    """A JSON object with keys that occur `again`; the last value of each counts."""

    again: frozenset[str] = frozenset()


class Digits(str):
    """A number of JSON as it is written."""

    __slots__ = ()


class Infinite(str):
    """An infinite number, which JSON does not have."""

    __slots__ = ()


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its keys and values."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    ambiguous = Ambiguous(content)
    counts = Counter(key for key, _ in pairs)
    ambiguous.again = frozenset(key for key, count in counts.items() if count > 1)
    return ambiguous


# NaN, as pandas writes it, is a missing value.
DECODER = json.JSONDecoder(
    object_pairs_hook=object_of,
    parse_int=Digits,
    parse_float=Digits,
    parse_constant=lambda name: None if name == "NaN" else Infinite(name),
)


def text_of(value: Any, name: str) -> tuple[str | None, str | None]:
    """A value as text, and why it is no text; the reason is None if it is."""
    if value is None or type(value) is str:
        return value, None
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, Infinite):
        return None, f"the column {name!r} holds {value}; expected text"
    if isinstance(value, str):
        return str(value), None
    return None, f"the column {name!r} holds {'a list' if isinstance(value, list) else 'an object'}; expected text"


def row_of(content: Any, number: int, line: int, wanted: Sequence[str], raw: str) -> Row:
    """The row of one parsed value."""
    if not isinstance(content, dict):
        return Row(number, line, (), "invalid JSON: not an object", raw)
    if isinstance(content, Ambiguous) and (again := [name for name in wanted if name in content.again]):
        return Row(number, line, (), f"invalid JSON: the key {again[0]!r} occurs twice", raw)
    values = []
    for name in wanted:
        value, reason = text_of(content.get(name), name)
        if reason is not None:
            return Row(number, line, (), reason, raw)
        values.append(value)
    return Row(number, line, values)


class Keys:
    """Remembers which keys the objects of a file have; a wanted column that none has is an error."""

    def __init__(self, source: str, wanted: Mapping[str, str]) -> None:
        self.source, self.wanted = source, wanted
        self.seen = dict.fromkeys(wanted, False)
        self.names: dict[str, None] = {}

    def add(self, content: Any) -> None:
        """Remember the keys of an object."""
        if isinstance(content, dict) and not (len(self.names) >= KNOWN_NAMES and all(self.seen.values())):
            for name in self.seen:
                self.seen[name] = self.seen[name] or name in content
            if len(self.names) < KNOWN_NAMES:
                self.names.update(dict.fromkeys(name[:EXCERPT] for name in list(content)[:KNOWN_NAMES]))

    def check(self) -> None:
        """Raise UserError for a wanted column that no object has."""
        if self.names:
            present = [name for name, seen in self.seen.items() if seen]
            others = [name for name in self.names if is_utf8(name) and name not in present]
            check_columns(self.source, [*present, *others], self.wanted)


def parsed(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text, and why the text is invalid; the reason is None if it is valid."""
    try:
        return DECODER.decode(text), None
    except (ValueError, RecursionError) as error:
        return None, f"invalid JSON: {' '.join(str(error).split())[:EXCERPT]}"


def json_lines(lines: Lines, keys: Keys, wanted: Sequence[str]) -> Iterator[Row]:
    """Rows of a file with one JSON object per line; a malformed line affects no other line."""
    number = 0
    while True:
        lines.taken.clear()
        try:
            line = next(lines, None)
        except LongLine as long:
            number += 1
            yield Row(number, lines.number, (), TOO_LONG, str(long))
            continue
        if line is None:
            break
        if not line.strip():
            continue
        number += 1
        content, reason = parsed(line)
        keys.add(content)
        yield Row(number, lines.number, (), reason, line) if reason else row_of(content, number, lines.number, wanted, line)
    keys.check()


class Stream:
    """The text of a file by chunks, for values that span lines. What comes before `at` was read; `line` is the line there."""

    def __init__(self, file: io.TextIOBase) -> None:
        self.file, self.text, self.at, self.line, self.ended = file, "", 0, 1, False

    def more(self) -> bool:
        """Read another chunk, as long as what is left, so that a long value is not parsed too often; False at the end."""
        left = self.text[self.at :]
        chunk = self.file.read(max(CHUNK, len(left)))
        self.text, self.at = left + chunk, 0
        self.ended = not chunk
        return bool(chunk)

    def advance(self, end: int) -> str:
        """Go on to a position of the text, and return what comes before it."""
        passed = self.text[self.at : end]
        self.line += passed.count("\n")
        self.at = end
        return passed

    def skip(self, characters: re.Pattern[str]) -> str:
        """Go on behind some characters, and return the next one; "" at the end."""
        while True:
            match = characters.match(self.text, self.at)
            self.advance(match.end() if match else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


def next_value(stream: Stream) -> tuple[Any, int]:
    """The next value of a stream and where it ends; raises ValueError or RecursionError."""
    while True:
        try:
            content, end = DECODER.raw_decode(stream.text, stream.at)
        except ValueError:
            # The value may go on in the next chunk.
            if len(stream.text) - stream.at > LONGEST_LINE or not stream.more():
                raise
            continue
        # A number at the end of a chunk may go on, too.
        if end < len(stream.text) or not stream.more():
            return content, end


def json_values(file: io.TextIOBase, source: str, keys: Keys, wanted: Sequence[str]) -> Iterator[Row]:
    """Rows of JSON arrays of objects, and of objects, that follow each other.

    Raises UserError, with the line, where the document is broken: what follows cannot be read.
    """
    stream, number, inside = Stream(file), 0, False
    while character := stream.skip(BETWEEN):
        line = stream.line
        if character == ("]" if inside else "["):
            inside = not inside
            stream.advance(stream.at + 1)
            continue
        number += 1
        try:
            content, end = next_value(stream)
        except (ValueError, RecursionError) as error:
            begin = excerpt(stream.text[stream.at : stream.at + 60])
            raise UserError(
                f"{source}: row {number} (line {line}): invalid JSON: {' '.join(str(error).split())[:EXCERPT]}, in {begin!r};"
                " the rest of an array cannot be read; expected an array of objects, or one object per line"
            ) from error
        keys.add(content)
        yield row_of(content, number, line, wanted, stream.advance(end))
    if inside:
        raise UserError(f"{source}: line {stream.line}: the array is not closed; the file may be cut off")
    keys.check()
