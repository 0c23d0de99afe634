"""Who may ask: a token where there is one, else only clients that name this machine."""

from __future__ import annotations

import hmac
import json
import os
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ballast.exceptions import UserError

TOKEN = "BALLAST_ENDPOINT_TOKEN"
FORM = re.compile(r"[!-~]{16,1000}")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# Probes come from the node and know no token.
OPEN = frozenset({"/health", "/ready"})
HEADERS = [
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
]


def token_for(host: str) -> str | None:
    """The token that clients must send; raises UserError for a weak one, or for none where other machines can connect."""
    token = os.environ.get(TOKEN)
    if token is None and host not in LOOPBACK:
        raise UserError(
            f"{TOKEN} is not set, but {host} accepts connections from other machines; set it to a random text of at least 16"
            " characters, which clients send as `Authorization: Bearer ...`"
        )
    if token is not None and not FORM.fullmatch(token):
        raise UserError(f"{TOKEN}: expected 16 to 1,000 printable ASCII characters without spaces")
    return token


def host_of(header: str) -> str:
    """The host name in a Host header, without port and brackets.

    >>> host_of("localhost:8000"), host_of("[::1]:8000"), host_of("::1")
    ('localhost', '::1', '::1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header if header.count(":") > 1 else header.partition(":")[0]


class Guard:
    """An application that answers only those who may ask.

    Without a token, a request must name this machine: a web page can let its own name point here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None, host: str) -> None:
        self.app = app
        self.expected = None if token is None else f"Bearer {token}".encode()
        self.hosts = LOOPBACK | {host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self.refusal(scope)) is not None:
            await respond(send, *refused)
            return
        if scope["type"] == "websocket":
            return
        await self.app(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence for a request that is refused."""
        headers = Headers(scope=scope)
        if self.expected is None:
            if host_of(headers.get("host", "")) not in self.hosts:
                return 421, f"the host name is not that of this server; set {TOKEN} to allow other names"
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if scope["path"] not in OPEN and not hmac.compare_digest(given, self.expected):
            return 401, "the token is missing or wrong; send it as `Authorization: Bearer ...`"
        return None


async def respond(send: Send, status: int, detail: str) -> None:
    """Send an error."""
    body = json.dumps({"detail": detail, "errors": []}).encode()
    headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
