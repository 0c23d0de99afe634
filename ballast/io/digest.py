"""Embedded digests: files carry the SHA-256 of their content, so that readers detect changes.

JSON objects have one more key, parquet files one more metadata entry, npz files a comment. Other programs can still read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

# No name of a technique or a study contains a dot, so this key cannot collide.
KEY = "ballast.sha256"
LENGTH = 64
ZEROS = b"0" * LENGTH
BLOCK_BYTES = 1 << 20
# The metadata entry in the footer of a parquet file, as Thrift writes it: key, type and length of the value.
IN_PARQUET = KEY.encode() + b"\x18" + bytes([LENGTH])
PARQUET_MAGIC = b"PAR1"
# The comment at the end of a zip file.
IN_ZIP = KEY.encode() + b"="


class DigestError(ValueError):
    """The content has changed since it was written."""


class NoDigestError(DigestError):
    """The content has no digest."""


def of_json(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of its layout.

    >>> of_json({"b": 1, "a": 2}) == of_json({"a": 2, "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest added.

    >>> without_digest(with_digest({"a": 1}))
    {'a': 1}
    """
    # As in JSON, where numeric keys become text.
    plain = json.loads(json.dumps(dict(content), allow_nan=False))
    return {**content, KEY: of_json(plain)}


def without_digest(content: Any) -> dict[str, Any]:
    """A JSON object without its digest. Raises DigestError if the digest is missing or wrong.

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
    """Parse a JSON object and remove its digest. Raises ValueError, or its subclass DigestError."""
    return without_digest(json.loads(content))


def position(file: IO[bytes]) -> int | None:
    """Offset of the digest in an open parquet or zip file; None if it has none."""
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
    """The bytes of an open file, with zeros in place of the digest."""
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
    """SHA-256 of an open file, with zeros in place of the digest."""
    digest = hashlib.sha256()
    for block in blocks(file, at):
        digest.update(block)
    return digest.hexdigest().encode()


def seal(file: IO[bytes]) -> None:
    """Write the digest into a file that is open for reading and writing. Raises NoDigestError without a place for it."""
    at = position(file)
    if at is None:
        raise NoDigestError("there is no place for its sha256")
    digest = of_file(file, at)
    file.seek(at)
    file.write(digest)


def check(file: IO[bytes], *, required: bool = True) -> None:
    """Raise DigestError if an open parquet or zip file has changed, or if it has no digest but one is required."""
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
