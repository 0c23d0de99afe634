"""Files as bytes and as lines: compression by content, lines with their numbers, bounded memory."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from stages.tables.rows import EXCERPT

# Characters of a line or field that are read at most, and of a block of lines, without the rest of its last line.
LONGEST_LINE, BLOCK_CHARACTERS = 1 << 24, 1 << 20
TOO_LONG = f"the line is longer than {LONGEST_LINE:,} characters"
# The first bytes of compressed files, by the name of the compression.
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
PI = b"1AY"
# Old exports end with Ctrl-Z.
END_OF_FILE = "\x1a"
# Stands for bytes that the encoding does not have, as the lone surrogates of `surrogateescape` do.
UNDECODABLE = "\udcff"

codecs.register_error("ballast.mark", lambda error: (UNDECODABLE, getattr(error, "end", 0)))


def compression_of(head: bytes) -> str:
    """The compression by the first bytes of a file.

    >>> compression_of(gzip.compress(b"text")), compression_of(b"text")
    ('gzip', 'none')
    """
    name = next((name for name, magic in MAGIC.items() if head.startswith(magic)), "none")
    # A text may begin with the letters of bzip2, but not with the digits of pi behind them.
    return "none" if name == "bz2" and head[4:7] != PI else name


def binary_file(path: Path, compression: str) -> IO[bytes]:
    """A file without its compression; reading raises OSError, EOFError, ValueError or lzma.LZMAError if it is damaged."""
    if compression == "gzip":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if compression == "bz2":
        return bz2.open(path, "rb")
    if compression == "xz":
        return lzma.open(path, "rb")
    if compression == "zstd":
        stream: Any = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
        return io.BufferedReader(stream)
    return path.open("rb")


def text_file(file: Any, newline: str, encoding: str = "utf-8") -> io.TextIOWrapper:
    """A binary file as text; bytes that the encoding does not have become lone surrogates, which `is_utf8` finds."""
    utf8 = codecs.lookup(encoding).name == "utf-8"
    return io.TextIOWrapper(
        file, "utf-8-sig" if utf8 else encoding, errors="surrogateescape" if utf8 else "ballast.mark", newline=newline
    )


class LongLine(Exception):  # noqa: N818
    """A line that is too long to hold in memory; its argument is the beginning of the line."""


@dataclass
class Lines:
    """Iterates over the lines of a file; lines `taken` for a record that is malformed can be read `again`.

    number : lines so far. newline : "" if a carriage return alone ends a line, else a line feed.
    Raises LongLine for a line longer than LONGEST_LINE, which is skipped.
    """

    file: io.TextIOBase
    taken: list[str | LongLine] = field(default_factory=list)
    again: deque[str | LongLine] = field(default_factory=deque)
    number: int = 0
    newline: str = ""

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else read_line(self.file)
        if line == "":
            raise StopIteration
        self.taken.append(line)
        self.number += 1
        if isinstance(line, LongLine):
            raise line
        return line

    def block(self) -> str:
        """The next lines as one text, for the caller to count or to give to `by_line`; "" if there are none.

        Call it only if no line is to be read again. Nor is one afterwards, unless a line is too long: the block ends before it.
        """
        # No longer than a line may be.
        text = self.file.read(min(BLOCK_CHARACTERS, LONGEST_LINE))
        at = max(text.rfind("\n"), -1 if self.newline else text.rfind("\r")) + 1
        # Behind a carriage return, a line feed of the same line end may follow.
        last = read_line(self.file, text[at:]) if text[at:] or text.endswith("\r") else ""
        if isinstance(last, LongLine):
            self.again.append(last)
            return text[:at]
        return text[:at] + last

    def by_line(self, block: str) -> None:
        """Read the lines of a block next, one at a time."""
        self.again.extendleft(reversed(list(io.StringIO(block, newline=self.newline))))

    def all_but_first_again(self) -> str:
        """Put back all lines taken except the first, and return the first."""
        first, *others = self.taken
        self.again.extendleft(reversed(others))
        self.number -= len(others)
        del self.taken[1:]
        return str(first)


def read_line(file: io.TextIOBase, begun: str = "") -> str | LongLine:
    """The next line with its line end, or "" at the end of the file; only the beginning of a line that is too long.

    begun : what was read of the line already.
    """
    line = begun + file.readline(LONGEST_LINE - len(begun))
    if line.endswith("\n") or line.endswith("\r"):
        return line
    if len(line) < LONGEST_LINE:
        return line.rstrip(END_OF_FILE)
    while (more := file.readline(LONGEST_LINE)) and not more.endswith("\n"):
        pass
    return LongLine(line[:EXCERPT])
