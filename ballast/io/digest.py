"""Digests that files carry in themselves: the SHA-256 of all that a file holds, by which a reader knows that it is as written.

JSON objects have one more key, parquet files one more entry of metadata, npz files a comment; any program can read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

# No name of a technique or a study has a dot.
KEY = "ballast.sha256"
LENGTH = 64
ZEROS = b"0" * LENGTH
BLOCK_BYTES = 1 << 20
# How Thrift writes the entry of the metadata in a parquet file's footer: the key, the value's type and its length.
IN_PARQUET = KEY.encode() + b"\x18" + bytes([LENGTH])
PARQUET_MAGIC = b"PAR1"
# The comment at the end of a zip file.
IN_ZIP = KEY.encode() + b"="


class DigestError(ValueError):
    """The content is not what was written."""


class NoDigestError(DigestError):
    """The content carries no digest."""


def of_json(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, however it is laid out.

    >>> of_json({"b": 1, "a": 2}) == of_json({"a": 2, "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of the rest of it.

    >>> without_digest(with_digest({"a": 1}))
    {'a': 1}
    """
    # As JSON has it: keys that are numbers become text.
    plain = json.loads(json.dumps(dict(content), allow_nan=False))
    return {**content, KEY: of_json(plain)}


def without_digest(content: Any) -> dict[str, Any]:
    """A JSON object without its digest; raises DigestError unless it has one and it is right.

    >>> without_digest({"a": 1, KEY: "of something else"})
    Traceback (most recent call last):
    ballast.io.digest.DigestError: its sha256 is wrong
    """
    if not isinstance(content, dict) or KEY not in content:
        raise NoDigestError(f"it has no sha256 ({KEY})")
    rest = {key: value for key, value in content.items() if key != KEY}
    if content[KEY] != of_json(rest):
        raise DigestError("its sha256 is wrong")
    return rest


def parse_json(content: bytes | str) -> dict[str, Any]:
    """The JSON object in some bytes, without its digest; raises ValueError, which DigestError is, unless it is as written."""
    return without_digest(json.loads(content))


def position(file: IO[bytes]) -> int | None:
    """Where the digest of an open parquet or zip file is; None where it has none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    end = file.read(8)
    if end.endswith(PARQUET_MAGIC):
        length = min(size, int.from_bytes(end[:4], "little") + 8)
        marker = IN_PARQUET
    else:
        length = min(size, len(IN_ZIP) + LENGTH)
        marker = IN_ZIP
    file.seek(size - length)
    at = file.read(length).find(marker)
    return None if at < 0 else size - length + at + len(marker)


def blocks(file: IO[bytes], at: int) -> Iterator[bytes]:
    """The bytes of an open file with zeros in the place of the digest."""
    file.seek(0)
    before = at
    while before and (block := file.read(min(BLOCK_BYTES, before))):
        before -= len(block)
        yield block
    file.seek(at + LENGTH)
    yield ZEROS
    while block := file.read(BLOCK_BYTES):
        yield block


def of_file(file: IO[bytes], at: int) -> bytes:
    """SHA-256 of an open file with zeros in the place of the digest."""
    found = hashlib.sha256()
    for block in blocks(file, at):
        found.update(block)
    return found.hexdigest().encode()


def seal(file: IO[bytes]) -> None:
    """Put the digest of a file, open to read and write, into its place; raises NoDigestError where none was left for it."""
    at = position(file)
    if at is None:
        raise NoDigestError("there is no place for its sha256")
    digest = of_file(file, at)
    file.seek(at)
    file.write(digest)


def check(file: IO[bytes], *, required: bool = True) -> None:
    """Raise DigestError unless an open parquet or zip file is as written; without a digest it passes if none is required."""
    at = position(file)
    if at is not None:
        file.seek(at)
        if file.read(LENGTH) != of_file(file, at):
            raise DigestError("its sha256 is wrong")
    elif required:
        raise NoDigestError(f"it has no sha256 ({KEY})")
    file.seek(0)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
