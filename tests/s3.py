"""An S3 server for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flow_fixtures import eventually, free_port
from tests.project import environment

ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "only-in-this-test", "AWS_DEFAULT_REGION": "us-east-1"}

CLIENT = {
    "aws_access_key_id": ACCESS["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": ACCESS["AWS_SECRET_ACCESS_KEY"],
    "region_name": ACCESS["AWS_DEFAULT_REGION"],
}


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3(folder: Path, **settings: str) -> Iterator[str]:
    """An S3 server with settings of moto's; yields its address."""
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)], env=environment(**settings), stdout=log, stderr=log
        )
    try:
        eventually(lambda: answers(port), 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=300)
