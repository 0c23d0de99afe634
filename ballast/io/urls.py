"""URLs without what only their user may know: user info, query and fragment.

A URL is shown, stored and logged in its public form. Whatever opens one asks `full_url` for the rest, which the environment
has. Several URLs may be chained by "::", as in zip://a.csv::https://host/a.zip.
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
# Where a chain goes on. The colons of an IPv6 address do not precede a scheme.
CHAIN = re.compile(rf"::(?={SCHEME}(?:://|::))")
WHOLE = re.compile(rf"(?:[a-z0-9]+::)*{SCHEME}://")
# As a path library writes a URL: with one slash.
COLLAPSED = re.compile(rf"({SCHEME}:/)[^/\s'\"<>`]+@")
IN_TEXT = re.compile(rf"{SCHEME}://[^\s'\"<>`]+")
IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]")
AUTHORITY = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
# Paths here or within an archive, in which a question mark is a character like any other.
LOCAL = frozenset({"file", "libarchive", "local", "memory", "tar", "zip"})
# Names in a store, in which a number sign is a character like any other.
STORES = LOCAL | {"abfs", "az", "gcs", "gs", "hdfs", "s3", "s3a", "sftp", "ssh"}
# What stands before their @ is a container's name.
CONTAINERS = frozenset({"abfs", "abfss", "wasb", "wasbs"})
# Parts of a query that are shorter are no secrets, and hiding them would spoil other words.
SHORTEST = 6
LONGEST_NAME = 200


class Parts(NamedTuple):
    """A URL of a chain; `user_info`, `query` and `fragment` are empty where there is none."""

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
        """Whether anything is left out of the public form."""
        return bool(self.user_info or self.query or self.fragment)


def parts_of(link: str) -> Parts | None:
    """The parts of one URL; None for what is none. A password may hold @, and unescaped / ? and # too."""
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
        # What looks like a port is the beginning of a password.
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
    """A path as it is, a URL without user info, query and fragment.

    >>> public_url("zip://a.csv::https://user:p@ss@[::1]:8443/a.zip?signature=1#top")
    'zip://a.csv::https://[::1]:8443/a.zip'
    """
    links = CHAIN.split(url)
    return "::".join(link if (parts := parts_of(link)) is None else parts.public for link in links)


def file_path(url: str) -> str:
    """The path that says what a URL's file is named, without what a query adds; of a chain that of the innermost file.

    >>> file_path("https://host/my%20messages.csv?signature=1/2.txt")
    '/my messages.csv'
    """
    parts = next(filter(None, map(parts_of, CHAIN.split(url))), None)
    if parts is None:
        return url
    # An archive may be a file here.
    path = (parts.host + parts.path).partition("::")[0]
    return path if parts.scheme.lower() in STORES else unquote(parts.path)


def file_name(url: str) -> str:
    """A name for a local copy of a URL's file, of which the end says its format."""
    name = PurePosixPath(file_path(url).replace("\0", "")).name.encode("utf-8", "replace")
    return name[-LONGEST_NAME:].decode("utf-8", "ignore").lstrip(".") or "file"


def unambiguous(url: str) -> str:
    """A URL as fsspec understands it, which takes any two colons for those of a chain: an IPv6 address is written in full.

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
        return f"{parts.scheme}://{user_info}{at}{IPV6.sub(in_full, parts.host)}{parts.path}{query}"

    return "::".join(map(escaped, CHAIN.split(url)))


def in_full(address: re.Match[str]) -> str:
    """An IPv6 address in brackets without two colons in a row."""
    try:
        return f"[{ipaddress.IPv6Address(address[1]).exploded}]"
    except ValueError:
        return address[0]


def lines_of(text: str) -> list[str]:
    """The URLs of a text, one a line; a line that begins with # is a remark."""
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def secret_urls() -> list[str]:
    """The full URLs that the environment names; raises UserError for a file that others may read."""
    from ballast.io.paths import private_text

    file = os.environ.get(SECRET_URLS_FILE)
    return lines_of(os.environ.get(SECRET_URLS, "")) + (lines_of(private_text(Path(file), SECRET_URLS_FILE)) if file else [])


def add_secret_url(url: str) -> str:
    """Put a URL with secrets into the environment, for this process and its children; its public form."""
    public = public_url(url)
    if public != url:
        # First, since the first of equal URLs counts: an older one may have expired.
        os.environ[SECRET_URLS] = "\n".join(filter(None, [url, os.environ.get(SECRET_URLS, "")]))
        remember(url)
    return public


def full_url(url: str) -> str:
    """A URL with its secrets, which are its own or those of the environment for an equal URL, or for a folder that holds it.

    Raises UserError for a file of secrets that others may read.
    """
    known = [parts for line in secret_urls() for link in CHAIN.split(line) if (parts := parts_of(link)) and parts.has_secrets]
    whole = "::".join(with_secrets(link, known) for link in CHAIN.split(url))
    remember(whole)
    return whole


def with_secrets(link: str, known: list[Parts]) -> str:
    """One URL with the secrets of a known one that is equal, else of the longest one that ends with a slash and holds it."""
    parts = parts_of(link)
    if parts is None or parts.has_secrets:
        return link
    equal = [each for each in known if each.public == parts.public]
    above = [each for each in known if each.public.endswith("/") and parts.public.startswith(each.public)]
    for found in equal or sorted(above, key=lambda each: len(each.public), reverse=True):
        user_info = f"{found.user_info}@" if found.user_info else ""
        query = f"?{found.query}" if found.query else ""
        return f"{parts.scheme}://{user_info}{parts.host}{parts.path}{query}"
    return link


# Of the URLs that this process has opened: whatever an error says of them in other words is hidden too.
_secrets: set[str] = set()


def remember(url: str) -> None:
    """Have `hidden` hide the secrets of a URL from now on."""
    for link in CHAIN.split(url):
        if parts := parts_of(link):
            _secrets.update(spellings(parts))


@lru_cache(maxsize=8)
def remember_environment(urls: str, file: str) -> None:
    """Have `hidden` hide the secrets of the environment; a file of them that cannot be read is an error elsewhere."""
    with suppress(OSError, ValueError):
        urls += "\n" + (Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else "")
    for url in lines_of(urls):
        remember(url)


def spellings(parts: Parts) -> Iterator[str]:
    """All that gives away a URL's secrets: they and their parts, escaped and not."""
    secrets = {parts.query, *(each.partition("=")[2] for each in re.split("[&;]", parts.query)), parts.fragment}
    secrets = {secret for secret in secrets if len(secret) >= SHORTEST}
    if parts.user_info:
        user, colon, password = parts.user_info.partition(":")
        # A user without a password is a token.
        secrets |= {parts.user_info, password if colon else user}
        decoded = f"{unquote(user)}:{unquote(password)}"
        secrets.add(base64.b64encode(decoded.encode("utf-8", "surrogateescape")).decode())
    for secret in filter(None, secrets):
        for spelling in (secret, unquote(secret), unquote_plus(secret)):
            yield from (spelling, quote(spelling), quote(spelling, safe=""), quote_plus(spelling), repr(spelling)[1:-1])


def hidden(text: str) -> str:
    """A text in which each URL has its public form, and no secret of a URL that is known here is left.

    >>> hidden("Cannot connect to https://user:password@host/a.csv?token=1, which is away")
    'Cannot connect to https://host/a.csv, which is away'
    """
    remember_environment(os.environ.get(SECRET_URLS, ""), os.environ.get(SECRET_URLS_FILE, ""))
    text = public_text(text)
    for secret in sorted(_secrets, key=len, reverse=True):
        if secret in text:
            # A short one is no part of another word.
            pattern = re.escape(secret) if len(secret) >= SHORTEST else rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(pattern, HIDDEN, text)
    return text


def public_text(text: str) -> str:
    """A text in which each URL has its public form; the punctuation after one stays."""

    def public(found: re.Match[str]) -> str:
        url = found[0].rstrip(".,:;!)]}")
        return public_url(url) + found[0][len(url) :]

    return COLLAPSED.sub(r"\1", IN_TEXT.sub(public, text))


def secrets_in(params: Any) -> dict[str, str]:
    """URLs with secrets among settings: the key of each -> its public form. The texts of `probe` are no settings.

    >>> secrets_in({"ingest": {"path": "https://user:password@host/a.csv"}})
    {'ingest.path': 'https://host/a.csv'}
    """
    found, waiting, seen = dict[str, str](), [("", params)], set[int]()
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            url = value.strip()
            if WHOLE.match(url) and public_url(url) != url:
                found[place] = public_url(url)
        elif isinstance(value, dict | list) and id(value) not in seen:
            # YAML can repeat a part without end.
            seen.add(id(value))
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{place}.{key}".lstrip("."), each) for key, each in inside if (place, key) != ("", "probe")]
    return found


def bare_address(url: str) -> bool:
    """Whether a web address names a host only: the path of a webhook is its secret."""
    return re.fullmatch(r"https?://[^/?#@\s]+/?", url) is not None


def refusal(key: str, url: str) -> str:
    """Why a URL with secrets is no setting of a file that git tracks, and where its secrets belong."""
    ways = {
        # DVC itself looks at this one.
        "ingest.path": "put user and password into ~/.netrc, or write remote://NAME/path of a DVC remote with credentials in"
        " .dvc/config.local, or download the file first",
    }
    return (
        f"{key} is a URL with user info, a query or a fragment, which git and DVC would keep; write {url} and"
        f" {ways.get(key, f'put the full URL into the environment variable {SECRET_URLS}')}"
    )
