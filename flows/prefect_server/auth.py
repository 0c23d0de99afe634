"""Who may use a Prefect server: the auth string that it asks for, where that is kept, and whom a command here tells it.

Prefect's defaults let any web page start runs. Every server that this project starts asks for a string, which a browser does
not send by itself, and lets no page of another origin read an answer.
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
# What a client sends, and what a server asks for.
CLIENT, SERVER = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
# Prefect compares bytes of ASCII only, and takes an empty setting for none.
FORM = re.compile(r"[!-9;-~]+:[!-~]+")
# No page has this origin. An empty list would be Prefect's default, which is all.
NO_ORIGIN = "https://none.invalid"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def server_home() -> Path:
    """The folder of the server that `make serve` starts here."""
    return Path(os.environ.get("PREFECT_HOME") or HOME).expanduser().resolve()


def new_auth_string() -> str:
    """A user and a password that nobody guesses."""
    return f"ballast:{secrets.token_urlsafe(32)}"


def stored_auth_string(home: Path) -> str:
    """The auth string of a server's home, made where there is none; raises UserError where others can read it or it is none."""
    path = home / AUTH_FILE
    if not path.exists():
        write_private(path, new_auth_string())
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: expected a file with user:password; remove it, the next start makes one")
    if status.st_mode & OTHERS:
        raise UserError(
            f"{path}: others can read it (mode {stat.S_IMODE(status.st_mode):04o}, expected 0600);"
            " delete it, the next start makes a new one"
        )
    return checked_auth_string(
        path.read_bytes().decode("utf-8", errors="replace").strip(), str(path), "delete it, the next start makes one"
    )


def checked_auth_string(word: str, where: str, remedy: str) -> str:
    """An auth string; raises UserError when it is not user:password."""
    if not FORM.fullmatch(word):
        raise UserError(f"{where}: expected user:password in printable ASCII without spaces; {remedy}")
    return word


def write_private(path: Path, content: str) -> None:
    """Write a file that nobody else can read at any moment, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def open_private(path: str, flags: int) -> int:
    """An `opener` of files for their owner only."""
    return os.open(path, flags, 0o600)


def make_private(home: Path) -> None:
    """Keep others out of a server's home, also of one that is there already; raises UserError where that is not allowed."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder that PREFECT_HOME names may hold other things for other people.
        if home == HOME.resolve():
            home.chmod(0o700)
        for path in (*home.glob("prefect.db*"), home / "server.log", home / LOCK_FILE, home / ADDRESS_FILE):
            if path.is_file() and path.stat().st_mode & OTHERS:
                path.chmod(0o600)
    except OSError as error:
        raise UserError(f"{error.filename or home}: cannot be kept from others ({error.strerror}); who owns it?") from error


def host_names(host: str, others: Sequence[str]) -> list[str]:
    """The host names of a server: that on which it listens, all of this machine where it listens everywhere, and given ones."""
    own = [host]
    if host in ANY_ADDRESS:
        found = [each for addresses in psutil.net_if_addrs().values() for each in addresses]
        addresses = [each.address.partition("%")[0] for each in found if each.family in (socket.AF_INET, socket.AF_INET6)]
        own = [socket.gethostname(), socket.getfqdn(), *addresses]
    return list(dict.fromkeys(url_host(name) for name in (*LOOPBACK, *own, *others)))


def url_host(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def server_settings(settings: Settings, word: str, origins: Sequence[str]) -> dict[str, str]:
    """The environment of a server that asks who is there; what a user has set of it counts."""
    api, chosen = settings.server.api, settings.server.api.model_fields_set
    allowed = api.cors_allowed_origins if "cors_allowed_origins" in chosen else ",".join(origins)
    csrf = api.csrf_protection_enabled if "csrf_protection_enabled" in chosen else True
    return {
        SERVER: word,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": allowed,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": str(csrf).lower(),
    }


def client_settings(settings: Settings, word: str) -> dict[str, str]:
    """The environment of a client of such a server; what a user has set of it counts."""
    csrf = settings.client.csrf_support_enabled
    return {CLIENT: word, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": str(csrf).lower()}


def configured_auth_string(settings: Settings) -> str | None:
    """The auth string that a user has set; raises UserError when that of server and client differ, or Prefect refuses it."""
    given = {SERVER: settings.server.api.auth_string, CLIENT: settings.api.auth_string}
    words = {name: word.get_secret_value() for name, word in given.items() if word}
    for name, word in words.items():
        checked_auth_string(word, name, "for example ballast: and 40 random letters")
    if len(set(words.values())) > 1:
        raise UserError(f"{SERVER} and {CLIENT} differ; set one of them, or both to the same user:password")
    return next(iter(words.values()), None)


def missing_settings(settings: Settings) -> dict[str, str]:
    """What this process's environment lacks: the auth string of its server, or guards for the one Prefect starts for a run."""
    url = settings.api.url
    if url is None:
        word = configured_auth_string(settings) or new_auth_string()
        return server_settings(settings, word, [NO_ORIGIN]) | client_settings(settings, word)
    if settings.api.auth_string is not None or settings.api.key is not None:
        return {}
    known = auth_string_for(server_home(), url)
    return {} if known is None else client_settings(settings, known)


def auth_string_for(home: Path, url: str) -> str | None:
    """The auth string for an address, if the server of a home is what listens there now; nobody else is told it."""
    try:
        if (home / ADDRESS_FILE).read_text(encoding="utf-8").strip() != url.rstrip("/"):
            return None
        lines = (home / LOCK_FILE).read_text(encoding="utf-8").splitlines()
        (number,) = (int(line.split()[1]) for line in lines if line.startswith("server "))
        connections = psutil.Process(number).net_connections("inet")
    except (OSError, ValueError, psutil.Error):
        return None
    listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return stored_auth_string(home) if urlsplit(url).port in listening else None
