"""Answer HTTP requests with the deployed model, until Ctrl-C.

`POST /score` labels messages as `flows.score` does, and `/docs` describes all paths. What was answered is in
`production/answered/`. Another version that is deployed takes over without a restart. With BALLAST_ENDPOINT_TOKEN, clients
must send that token.
"""

from __future__ import annotations

import resource
from pathlib import Path

import uvicorn

from ballast.cli import parser, run
from ballast.exceptions import UserError
from flows.locks import single_instance
from flows.ports import check_port
from flows.scoring.app import application
from flows.scoring.connections import Connection
from flows.scoring.guard import Guard, token_for
from flows.scoring.logs import log, log_as_json
from flows.settings import PARAMS

# As in flows/serve.py, which takes seconds to import.
PORT = 8300
ANSWERED = Path("production/answered")
# A client may use a connection again within this time, and requests at work may end within it when the server stops.
SECONDS = 30


def allow_many_connections() -> None:
    """Raise the limit of open files as far as this user may: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(host: str, port: int) -> None:
    if not PARAMS.is_file():
        raise UserError(f"{PARAMS}: no such file; run this command in the root of the repository")
    token = token_for(host)
    allow_many_connections()
    check_port(host, port)
    # Two processes would not know each other's answers while they score.
    with single_instance(ANSWERED / ".lock"):
        log_as_json()
        log("started", host=host, port=port, token=token is not None)
        uvicorn.run(
            Guard(application(token=token is not None), token, host),
            host=host,
            port=port,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=SECONDS,
            timeout_graceful_shutdown=SECONDS,
        )


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    arguments.add_argument("--port", type=int, default=PORT, help=f"port to listen on (default {PORT})")
    run(main, arguments.parse_args())
