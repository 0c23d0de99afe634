"""Where a path or URL of a source leads: its file system, with the secrets that the URL itself does not say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from ballast.io.secret_urls import full_url
from ballast.io.urls import CHAIN, parts_of, redact, unambiguous

# A DVC remote, whose URL and credentials are in .dvc/config and .dvc/config.local.
REMOTE = "remote://"
# Until a server must have taken a connection, until it must have sent something, and until it must have sent all: a file is
# fetched in parts.
CONNECT_SECONDS, SILENT_SECONDS, REQUEST_SECONDS = 10.0, 30.0, 3600.0

# Fetched once: not every server sends parts of a file, which an archive is read by.
ARCHIVE_ON_THE_WEB = re.compile(r"((?:zip|tar|libarchive)://(?:(?!://).)*::)(?=https?://)")


def is_url(place: str) -> bool:
    """Whether a source is at a URL, and not at a path here."""
    return "://" in place


def file_system(place: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path there; raises UserError, and errors of each kind of storage."""
    if place.startswith(REMOTE):
        return of_remote(place)
    import fsspec

    whole = ARCHIVE_ON_THE_WEB.sub(r"\1simplecache::", unambiguous(full_url(place))) if is_url(place) else place
    schemes = {parts.scheme for link in CHAIN.split(whole) if (parts := parts_of(link))}
    system, root = fsspec.core.url_to_fs(whole, **{scheme: over_http() for scheme in schemes & {"http", "https"}})
    return system, str(root)


def over_http() -> dict[str, Any]:
    """How HTTP is spoken; aiohttp alone would wait for minutes.

    As DVC does, with which one a source has one meaning: credentials from ~/.netrc, a proxy from the environment.
    """
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {"client_kwargs": {"trust_env": True, "timeout": limits}}


def of_remote(place: str) -> tuple[Any, str]:
    """The same at remote://NAME/path, with what DVC's configuration says of the remote; raises UserError."""
    from dvc.config import Config
    from dvc.exceptions import DvcException
    from dvc.fs import get_cloud_fs

    try:
        kind, settings, path = get_cloud_fs(Config.from_cwd(), url=place)
        return kind(**settings).fs, str(path)
    except DvcException as error:
        raise UserError(f"{place}: {error}; `dvc remote add` adds one, `dvc remote list` shows those there are") from error


def check_file(place: str | Path, setting: str) -> Path:
    """A local file as a path; raises UserError that names the setting where there is none, or something else is there."""
    path = Path(place)
    if not regular_file(path):
        raise UserError(f"{path}: no such file ({setting})")
    return path


def error_text(error: BaseException) -> str:
    """An error's own words without secrets, or its kind where it has none."""
    # Of a page that cannot be had fsspec says its address only, and why as the cause.
    while isinstance(error, FileNotFoundError) and error.errno is None and error.__cause__ is not None:
        error = error.__cause__
    # Of too many redirects aiohttp says no word.
    words = "" if getattr(error, "status", None) == 0 else " ".join(str(error).split())
    return redact(words)[:300] or type(error).__name__
