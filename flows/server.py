"""Prefect's server, as `prefect server start` runs it, with additional checks.

Requests for host names other than the server's are refused, because a web page can resolve its own name to this machine
(DNS rebinding). Other pages cannot frame those of the server, and these load nothing from other hosts. Authentication comes
before all other checks.
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
from flows.prefect_server.options import add_server_options
from flows.prefect_server.secured_environment import OWN

HEADERS = {
    # Prefect's pages would otherwise send usage data to other hosts. They contain inline scripts and styles.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self';"
    " form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def application(hosts: Sequence[str]) -> ASGIApp:
    """Prefect's application, for requests to these host names."""
    return TrustedHostMiddleware(Guarded(authenticated_first(create_app(final=True))), hosts, www_redirect=False)


def authenticated_first(app: FastAPI) -> FastAPI:
    """Check the auth string before the CSRF token, so that strangers get 401 without a database query."""
    api = app.api_app  # type: ignore[attr-defined]
    for middleware in list(app.user_middleware):
        if middleware.cls is CsrfMiddleware:  # type: ignore[comparison-overlap]
            app.user_middleware.remove(middleware)
            api.user_middleware.append(middleware)
    return app


class Guarded:
    """An application with response headers against framing, embedding, and requests to other hosts."""

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
        raise UserError(f"{SERVER} is not set; set it to user:password, which clients must send")
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
    add_server_options(arguments)
    run(main, arguments.parse_args())
