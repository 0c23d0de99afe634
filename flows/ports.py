"""Check whether this machine lets a server listen on a port."""

from __future__ import annotations

import socket

from ballast.exceptions import UserError


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raise UserError, which names the option to change, if this process cannot listen on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another port with {option}") from error
