"""Authentication of Prefect servers: the auth string, where it is stored, and which server a client may send it to.

By default, Prefect lets any web page start runs. Every server of this project requires an auth string, which browsers do not
send by themselves, and lets no page of another origin read a response.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
from prefect.settings import Settings

from ballast.exceptions import UserError

HOME = Path("production/prefect")
AUTH_FILE, ADDRESS_FILE, LOCK_FILE = "auth_string", "address", "serve.lock"
# The auth string that a client sends, and the one that a server requires.
CLIENT, SERVER = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
# Prefect only compares ASCII, and treats an empty setting as none.
FORM = re.compile(r"[!-9;-~]+:[!-~]+")
# No page has this origin. An empty list would mean Prefect's default, which is every origin.
NO_ORIGIN = "https://none.invalid"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def server_home() -> Path:
    """The folder of the server that `make serve` starts in this checkout."""
    return Path(os.environ.get("PREFECT_HOME") or HOME).expanduser().resolve()


def new_auth_string() -> str:
    """A random auth string."""
    return f"ballast:{secrets.token_urlsafe(32)}"


def stored_auth_string(home: Path) -> str:
    """The auth string in a server's home, created if missing; raises UserError if it is invalid or other users can read it."""
    path = home / AUTH_FILE
    if not path.exists():
        write_private(path, new_auth_string())
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: expected a regular file with user:password; remove it, and the next start creates one")
    if status.st_mode & OTHERS:
        raise UserError(
            f"{path}: other users can read it (mode {stat.S_IMODE(status.st_mode):04o}, expected 0600);"
            " delete it, and the next start creates a new one"
        )
    return checked_auth_string(
        path.read_bytes().decode("utf-8", errors="replace").strip(), str(path), "delete it, and the next start creates one"
    )


def checked_auth_string(word: str, where: str, remedy: str) -> str:
    """A valid auth string, unchanged; raises UserError if it is not user:password."""
    if not FORM.fullmatch(word):
        raise UserError(f"{where}: expected user:password in printable ASCII without spaces; {remedy}")
    return word


def write_private(path: Path, content: str) -> None:
    """Write a file atomically; no other user can read it at any moment."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def open_private(path: str, flags: int) -> int:
    """An `opener` that creates files which only their owner can read."""
    return os.open(path, flags, 0o600)


def make_private(home: Path) -> None:
    """Make a server's home, new or existing, private; raises UserError if this user may not do that."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder that PREFECT_HOME names may contain files of other users.
        if home == HOME.resolve():
            home.chmod(0o700)
        for path in (
            *home.glob("prefect.db*"),
            home / "server.log",
            home / "endpoint.log",
            home / LOCK_FILE,
            home / ADDRESS_FILE,
        ):
            if path.is_file() and path.stat().st_mode & OTHERS:
                path.chmod(0o600)
    except OSError as error:
        raise UserError(f"{error.filename or home}: cannot be made private ({error.strerror}); check its owner") from error


def host_names(host: str, others: Sequence[str]) -> list[str]:
    """The host names of a server: its own, those of this machine if it listens on all addresses, and the given ones."""
    own = [host]
    if host in ANY_ADDRESS:
        interfaces = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
        addresses = [
            address.address.partition("%")[0] for address in interfaces if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
        own = [socket.gethostname(), socket.getfqdn(), *addresses]
    return list(dict.fromkeys(url_host(name) for name in (*LOOPBACK, *own, *others)))


def url_host(host: str) -> str:
    """A host as it is written in a URL; an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def server_settings(settings: Settings, word: str, origins: Sequence[str]) -> dict[str, str]:
    """Environment variables of a server with authentication; settings of the user take precedence."""
    api, chosen = settings.server.api, settings.server.api.model_fields_set
    allowed = api.cors_allowed_origins if "cors_allowed_origins" in chosen else ",".join(origins)
    csrf = api.csrf_protection_enabled if "csrf_protection_enabled" in chosen else True
    return {
        SERVER: word,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": allowed,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": str(csrf).lower(),
    }


def client_settings(settings: Settings, word: str) -> dict[str, str]:
    """Environment variables of a client of such a server; settings of the user take precedence."""
    csrf = settings.client.csrf_support_enabled
    return {CLIENT: word, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": str(csrf).lower()}


def configured_auth_string(settings: Settings) -> str | None:
    """The auth string that the user has set, or None; raises UserError if it is invalid or server and client differ."""
    given = {SERVER: settings.server.api.auth_string, CLIENT: settings.api.auth_string}
    words = {name: word.get_secret_value() for name, word in given.items() if word}
    for name, word in words.items():
        checked_auth_string(word, name, "use for example ballast: and 40 random letters")
    if len(set(words.values())) > 1:
        raise UserError(f"{SERVER} and {CLIENT} differ; set one of them, or both to the same user:password")
    return next(iter(words.values()), None)


def missing_settings(settings: Settings) -> dict[str, str]:
    """Settings to add to the environment: authentication for a temporary server, or the auth string of a running one."""
    url = settings.api.url
    if url is None:
        word = configured_auth_string(settings) or new_auth_string()
        return server_settings(settings, word, [NO_ORIGIN]) | client_settings(settings, word)
    if settings.api.auth_string is not None or settings.api.key is not None:
        return {}
    auth_string = auth_string_for(server_home(), url)
    return {} if auth_string is None else client_settings(settings, auth_string)


def auth_string_for(home: Path, url: str) -> str | None:
    """The auth string for a URL if the server of this home listens there now, else None: no other server may receive it."""
    try:
        if (home / ADDRESS_FILE).read_text(encoding="utf-8").strip() != url.rstrip("/"):
            return None
        lines = (home / LOCK_FILE).read_text(encoding="utf-8").splitlines()
        (number,) = (int(line.split()[1]) for line in lines if line.startswith("server "))
        connections = psutil.Process(number).net_connections("inet")
    except (OSError, ValueError, psutil.Error):
        return None
    listening = {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return stored_auth_string(home) if urlsplit(url).port in listening else None
