"""Secrets of URLs that the environment holds: look them up for a URL, and add one for child processes.

A URL is shown, stored and logged in its public form. Code that opens a URL asks `full_url` for the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

from ballast.io.paths import private_text
from ballast.io.urls import CHAIN, SECRET_URLS, SECRET_URLS_FILE, Parts, parts_of, public_url, register_secrets, url_lines


def secret_urls() -> list[str]:
    """The full URLs from the environment. Raises UserError for a file that other users may read."""
    file = os.environ.get(SECRET_URLS_FILE)
    return url_lines(os.environ.get(SECRET_URLS, "")) + (url_lines(private_text(Path(file), SECRET_URLS_FILE)) if file else [])


def add_secret_url(url: str) -> str:
    """Add a URL with secrets to the environment of this process and its children. Returns the public form."""
    public = public_url(url)
    if public != url:
        # In front, since the first of equal URLs counts: an older one may have expired.
        os.environ[SECRET_URLS] = "\n".join(filter(None, [url, os.environ.get(SECRET_URLS, "")]))
        register_secrets(url)
    return public


def full_url(url: str) -> str:
    """A URL with its secrets: its own, or those of the environment for an equal URL or for a folder that contains it.

    Raises UserError for a file of secrets that other users may read.
    """
    secrets = [parts for line in secret_urls() for link in CHAIN.split(line) if (parts := parts_of(link)) and parts.has_secrets]
    whole = "::".join(with_secrets(link, secrets) for link in CHAIN.split(url))
    register_secrets(whole)
    return whole


def with_secrets(link: str, secrets: list[Parts]) -> str:
    """One URL with the secrets of an equal URL, or else of the longest one that ends with a slash and contains it."""
    parts = parts_of(link)
    if parts is None or parts.has_secrets:
        return link
    equal = [secret for secret in secrets if secret.public == parts.public]
    parents = [secret for secret in secrets if secret.public.endswith("/") and parts.public.startswith(secret.public)]
    matches = equal or sorted(parents, key=lambda secret: len(secret.public), reverse=True)
    if not matches:
        return link
    user_info = f"{matches[0].user_info}@" if matches[0].user_info else ""
    query = f"?{matches[0].query}" if matches[0].query else ""
    return f"{parts.scheme}://{user_info}{parts.host}{parts.path}{query}"
