"""The file system of a path or URL, with credentials that the URL does not contain."""

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
# Timeouts for a connection, for the next bytes, and for a whole request; a file is fetched in parts.
CONNECT_SECONDS, SILENT_SECONDS, REQUEST_SECONDS = 10.0, 30.0, 3600.0

# Archives are read in parts, which not every server sends, so the whole file is fetched first.
ARCHIVE_ON_THE_WEB = re.compile(r"((?:zip|tar|libarchive)://(?:(?!://).)*::)(?=https?://)")


def is_url(place: str) -> bool:
    """Whether a source is a URL, and not a local path."""
    return "://" in place


def file_system(place: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path there; raises UserError, and the errors of the kind of storage."""
    if place.startswith(REMOTE):
        return of_remote(place)
    import fsspec

    whole = ARCHIVE_ON_THE_WEB.sub(r"\1simplecache::", unambiguous(full_url(place))) if is_url(place) else place
    schemes = {parts.scheme for link in CHAIN.split(whole) if (parts := parts_of(link))}
    system, root = fsspec.core.url_to_fs(whole, **{scheme: over_http() for scheme in schemes & {"http", "https"}})
    return system, str(root)


def over_http() -> dict[str, Any]:
    """Options of the HTTP file system: timeouts, as aiohttp would wait for minutes.

    As in DVC, credentials come from ~/.netrc, and a proxy from the environment.
    """
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {"client_kwargs": {"trust_env": True, "timeout": limits}}


def of_remote(place: str) -> tuple[Any, str]:
    """The file system and path of remote://NAME/path, by DVC's configuration of the remote; raises UserError."""
    from dvc.config import Config
    from dvc.exceptions import DvcException
    from dvc.fs import get_cloud_fs

    try:
        kind, settings, path = get_cloud_fs(Config.from_cwd(), url=place)
        return kind(**settings).fs, str(path)
    except DvcException as error:
        raise UserError(f"{place}: {error}; `dvc remote add` adds one, `dvc remote list` lists the existing ones") from error


def check_file(place: str | Path, setting: str) -> Path:
    """The path of a local file; raises UserError that names the setting if it is missing or no regular file."""
    path = Path(place)
    if not regular_file(path):
        raise UserError(f"{path}: no such file ({setting})")
    return path


def error_text(error: BaseException) -> str:
    """The message of an error on one line, without secrets; its type if the message is empty."""
    # The error of fsspec for a missing page has only its address; the reason is the cause.
    while isinstance(error, FileNotFoundError) and error.errno is None and error.__cause__ is not None:
        error = error.__cause__
    # The error of aiohttp for too many redirects has no message.
    words = "" if getattr(error, "status", None) == 0 else " ".join(str(error).split())
    return redact(words)[:300] or type(error).__name__
