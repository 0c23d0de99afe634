"""Public forms of URLs, without user info, query and fragment, which may hold secrets.

Several URLs may be chained by "::", as in zip://a.csv::https://host/a.zip. `ballast.io.secret_urls` looks up the secrets.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, unquote, unquote_plus

SECRET_URLS, SECRET_URLS_FILE = "BALLAST_SECRET_URLS", "BALLAST_SECRET_URLS_FILE"
HIDDEN = "***"
# Of bounded length, so that a long text takes no longer than it has characters.
SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}"
# Where the next URL of a chain begins. The colons of an IPv6 address do not precede a scheme.
CHAIN = re.compile(rf"::(?={SCHEME}(?:://|::))")
WHOLE = re.compile(rf"(?:[a-z0-9]+::)*{SCHEME}://")
# A URL as a path library writes it: with one slash.
COLLAPSED = re.compile(rf"({SCHEME}:/)[^/\s'\"<>`]+@")
IN_TEXT = re.compile(rf"{SCHEME}://[^\s'\"<>`]+")
IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]")
AUTHORITY = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
# Local paths and paths within an archive. A question mark is an ordinary character there.
LOCAL = frozenset({"file", "libarchive", "local", "memory", "tar", "zip"})
# Names in an object store. A number sign is an ordinary character there.
STORES = LOCAL | {"abfs", "az", "gcs", "gs", "hdfs", "s3", "s3a", "sftp", "ssh"}
# The part before @ is the name of a container.
CONTAINERS = frozenset({"abfs", "abfss", "wasb", "wasbs"})
# Shorter parts of a query are not secrets, and hiding them would garble other words.
SHORTEST_SECRET = 6
LONGEST_NAME = 200


class Parts(NamedTuple):
    """One URL of a chain. `user_info`, `query` and `fragment` are empty if the URL has none."""

    scheme: str
    user_info: str
    host: str
    path: str
    query: str
    fragment: str

    @property
    def public(self) -> str:
        """The URL without its secrets."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def has_secrets(self) -> bool:
        """Whether the public form leaves anything out."""
        return bool(self.user_info or self.query or self.fragment)


def parts_of(link: str) -> Parts | None:
    """The parts of one URL, or None if `link` is not a URL. A password may contain @, and also unescaped /, ? and #."""
    scheme, separator, rest = link.partition("://")
    if not separator or not re.fullmatch(SCHEME, scheme):
        return None
    kind = scheme.lower()
    if kind in LOCAL:
        return Parts(scheme, "", "", rest, "", "")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user_info = ""
    if "@" in authority:
        user_info = authority.rpartition("@")[0]
    elif "@" in rest and not AUTHORITY.fullmatch(authority):
        # The apparent port is the beginning of a password.
        user_info = rest.rpartition("@")[0]
    if user_info and not (kind in CONTAINERS and ":" not in user_info):
        rest = rest[len(user_info) + 1 :]
    else:
        user_info = ""
    rest, _, fragment = (rest, "", "") if kind in STORES else rest.partition("#")
    rest, _, query = rest.partition("?")
    at = rest.find("/")
    host, path = (rest, "") if at < 0 else (rest[:at], rest[at:])
    return Parts(scheme, user_info, host, path, query, fragment)


def public_url(url: str) -> str:
    """A URL without user info, query and fragment; a path stays unchanged.

    >>> public_url("zip://a.csv::https://user:p@ss@[::1]:8443/a.zip?signature=1#top")
    'zip://a.csv::https://[::1]:8443/a.zip'
    """
    links = CHAIN.split(url)
    return "::".join(link if (parts := parts_of(link)) is None else parts.public for link in links)


def file_path(url: str) -> str:
    """The path of a URL's file without the query. For a chain, the path of the innermost file.

    >>> file_path("https://host/my%20messages.csv?signature=1/2.txt")
    '/my messages.csv'
    """
    parts = next(filter(None, map(parts_of, CHAIN.split(url))), None)
    if parts is None:
        return url
    # An archive may be a local file.
    path = (parts.host + parts.path).partition("::")[0]
    return path if parts.scheme.lower() in STORES else unquote(parts.path)


def file_name(url: str) -> str:
    """A name for a local copy of a URL's file. It keeps the extension, which tells the format."""
    name = PurePosixPath(file_path(url).replace("\0", "")).name.encode("utf-8", "replace")
    return name[-LONGEST_NAME:].decode("utf-8", "ignore").lstrip(".") or "file"


def unambiguous(url: str) -> str:
    """Rewrite a URL for fsspec, which splits chains at any two colons: IPv6 addresses are written in full.

    >>> unambiguous("https://user:a::b/c@[::1]:8443/a.csv")
    'https://user:a%3A%3Ab%2Fc@[0000:0000:0000:0000:0000:0000:0000:0001]:8443/a.csv'
    """

    def escaped(link: str) -> str:
        parts = parts_of(link)
        if parts is None or parts.scheme.lower() in STORES:
            return link
        user_info = parts.user_info.replace("::", "%3A%3A").replace("/", "%2F").replace("?", "%3F").replace("#", "%23")
        at = "@" if user_info else ""
        query = f"?{parts.query}".replace("::", "%3A%3A") if parts.query else ""
        return f"{parts.scheme}://{user_info}{at}{IPV6.sub(exploded_ipv6, parts.host)}{parts.path}{query}"

    return "::".join(map(escaped, CHAIN.split(url)))


def exploded_ipv6(address: re.Match[str]) -> str:
    """An IPv6 address in brackets, without two colons in a row."""
    try:
        return f"[{ipaddress.IPv6Address(address[1]).exploded}]"
    except ValueError:
        return address[0]


def url_lines(text: str) -> list[str]:
    """The URLs of a text, one per line. Lines that begin with # are comments."""
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


# Secrets of the URLs that this process has opened. An error may repeat them in another spelling, so `redact` hides those too.
_secrets: set[str] = set()


def register_secrets(url: str) -> None:
    """Let `redact` hide the secrets of a URL from now on."""
    for link in CHAIN.split(url):
        if parts := parts_of(link):
            _secrets.update(spellings(parts))


@lru_cache(maxsize=8)
def register_environment(urls: str, file: str) -> None:
    """Let `redact` hide the secrets of the environment. `private_text` reports a file that cannot be read."""
    with suppress(OSError, ValueError):
        urls += "\n" + (Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else "")
    for url in url_lines(urls):
        register_secrets(url)


def spellings(parts: Parts) -> Iterator[str]:
    """Every spelling of a URL's secrets and of their parts, escaped and unescaped."""
    secrets = {parts.query, *(pair.partition("=")[2] for pair in re.split("[&;]", parts.query)), parts.fragment}
    secrets = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
    if parts.user_info:
        user, colon, password = parts.user_info.partition(":")
        # A user without a password is a token.
        secrets |= {parts.user_info, password if colon else user}
        decoded = f"{unquote(user)}:{unquote(password)}"
        secrets.add(base64.b64encode(decoded.encode("utf-8", "surrogateescape")).decode())
    for secret in filter(None, secrets):
        for spelling in (secret, unquote(secret), unquote_plus(secret)):
            yield from (spelling, quote(spelling), quote(spelling, safe=""), quote_plus(spelling), repr(spelling)[1:-1])


def redact(text: str) -> str:
    """Replace each URL in a text by its public form, and hide all registered secrets.

    >>> redact("Cannot connect to https://user:password@host/a.csv?token=1, which is away")
    'Cannot connect to https://host/a.csv, which is away'
    """
    register_environment(os.environ.get(SECRET_URLS, ""), os.environ.get(SECRET_URLS_FILE, ""))
    text = public_text(text)
    for secret in sorted(_secrets, key=len, reverse=True):
        if secret in text:
            # A short secret is hidden only as a whole word.
            pattern = re.escape(secret) if len(secret) >= SHORTEST_SECRET else rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(pattern, HIDDEN, text)
    return text


def public_text(text: str) -> str:
    """Replace each URL in a text by its public form. Punctuation after a URL stays."""

    def public(match: re.Match[str]) -> str:
        url = match[0].rstrip(".,:;!)]}")
        return public_url(url) + match[0][len(url) :]

    return COLLAPSED.sub(r"\1", IN_TEXT.sub(public, text))


def secrets_in(settings: Any, skip: str | None = None) -> dict[str, str]:
    """URLs with secrets among settings: key -> public form. The top-level section `skip` is left out.

    >>> secrets_in({"source": {"path": "https://user:password@host/a.csv"}})
    {'source.path': 'https://host/a.csv'}
    """
    urls, waiting, seen = dict[str, str](), [("", settings)], set[int]()
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            url = value.strip()
            if WHOLE.match(url) and public_url(url) != url:
                urls[place] = public_url(url)
        elif isinstance(value, dict | list) and id(value) not in seen:
            # YAML aliases can repeat a part without end.
            seen.add(id(value))
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{place}.{key}".lstrip("."), item) for key, item in inside if place or key != skip]
    return urls


def bare_address(url: str) -> bool:
    """Whether a web address names only a host. The path of a webhook is its secret."""
    return re.fullmatch(r"https?://[^/?#@\s]+/?", url) is not None


def refusal(key: str, url: str, *, from_environment: bool = True) -> str:
    """Explain that a setting must not hold a URL with secrets, given its public form, and where the secrets belong.

    from_environment : whether the secrets of this setting can come from the environment.
    """
    remedy = (
        f"put the full URL into the environment variable {SECRET_URLS}"
        if from_environment
        else "put user and password into ~/.netrc, or write remote://NAME/path and keep the credentials in the local"
        " configuration of that remote, or download the file first"
    )
    problem = f"{key} is a URL with user info, a query or a fragment, which would end up under version control"
    return f"{problem}; write {url} and {remedy}"
