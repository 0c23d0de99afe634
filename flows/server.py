"""Prefect's server, as `prefect server start` runs it, behind checks that Prefect lacks.

A request for a host name that is not the server's own is refused: a web page can give its own name this machine's address.
No other page shows the server's in a frame, and the server's own ask nobody else. Who sends a request is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI
from prefect.server.api.middleware import CsrfMiddleware
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ballast.cli import parser, run
from ballast.exceptions import UserError
from flows.prefect_server.auth import SERVER, host_names
from flows.prefect_server.secured_environment import OWN

HEADERS = {
    # Prefect's pages would otherwise tell others what a user does in them. They have scripts and styles within them.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self';"
    " form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def application(hosts: Sequence[str]) -> ASGIApp:
    """Prefect's application for requests to given hosts."""
    return TrustedHostMiddleware(Guarded(authenticated_first(create_app(final=True))), hosts, www_redirect=False)


def authenticated_first(app: FastAPI) -> FastAPI:
    """Move the check of the CSRF token behind that of the auth string, so that strangers get 401 and cost no look-up."""
    api = app.api_app  # type: ignore[attr-defined]
    for each in list(app.user_middleware):
        if each.cls is CsrfMiddleware:  # type: ignore[comparison-overlap]
            app.user_middleware.remove(each)
            api.user_middleware.append(each)
    return app


class Guarded:
    """An application whose pages no other page may frame or embed, and which load nothing from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, guarded)


def main(host: str, port: int, name: Sequence[str]) -> None:
    if SERVER in OWN:
        raise UserError(f"{SERVER} is not set; it is what the server asks for, user:password")
    settings = get_current_settings().server
    uvicorn.run(
        application(host_names(host, name)),
        host=host,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    arguments.add_argument("--port", type=int, default=4200, help="the port (default 4200)")
    arguments.add_argument(
        "--name", action="append", default=[], help="another host name of the server, as a proxy passes it on"
    )
    run(main, arguments.parse_args())
