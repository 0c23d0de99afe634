"""Command-line options of the server, for `flows.serve` and `flows.server`."""

from __future__ import annotations

from argparse import ArgumentParser


def add_server_options(parser: ArgumentParser) -> None:
    """Add --host, --port and --name."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4200, help="port to listen on (default 4200)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="another host name of the server, as a proxy forwards it; may be repeated",
    )
