"""Check that DVC can track `ingest.path`: a file, a folder or a URL, but no pattern of names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ballast.exceptions import UserError
from stages.store.places import is_url
from stages.store.project import PROJECT

PATTERN = frozenset("*?[")


def pattern_parts(path: str) -> tuple[str, str] | None:
    """The folder of a pattern and the pattern of the names in it; None for a path without one.

    >>> pattern_parts("shelf/part*.csv"), pattern_parts("*/a.csv"), pattern_parts("shelf/a.csv")
    (('shelf', 'part*.csv'), ('.', '*/a.csv'), None)
    """
    parts = PurePosixPath(path).parts
    at = next((at for at, part in enumerate(parts) if PATTERN & set(part)), None)
    return None if at is None else (str(PurePosixPath(*parts[:at])), str(PurePosixPath(*parts[at:])))


def check_no_pattern(path: str) -> None:
    """Raise UserError for a local path that is a pattern, with the settings that read the same files.

    A file whose name has the characters of a pattern is no pattern.
    """
    parts = None if is_url(path) or Path(path).exists() else pattern_parts(path)
    if parts is None:
        return
    folder, names = parts
    advice = ""
    # DVC refuses a folder that contains outputs of stages.
    if PROJECT.messages.resolve().is_relative_to(Path(folder).resolve()):
        advice, folder = "move the files into a folder of their own, such as data/raw; then ", "data/raw"
    raise UserError(
        f"{PROJECT.params}: ingest.path: {path} is a pattern, but DVC tracks a file, a folder or a URL; {advice}set"
        f' ingest.path: {folder} and ingest.files: "{names}"'
    )
