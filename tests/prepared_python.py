"""A python for the stages of the tests' projects: each starts as a fork of a process that has the libraries imported.

What runs is what a user runs, by DVC and from the project's own files; only the seconds of importing torch and its like are
spent once. Started by `prepared_python`; a process it forks is as any other, with its own folder, environment and streams.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

# Stands for python in the projects; without the imports of site it starts in milliseconds.
CLIENT = """#!{python} -SE
import json, os, socket, sys
if sys.argv[1] != "-m" or not sys.argv[2].startswith("stages."):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([os.getcwd(), dict(os.environ), sys.argv[2:]]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.makefile().read()))
"""
MAIN_STAGES = (
    "ingest",
    "validate",
    "search",
    "resample",
    "train",
    "probe",
    "errors",
    "report",
    "study.variant",
    "study.result",
)
IMPORTED_WHEN_NEEDED = ("ballast.training.fine_tune", "ballast.models.embedding", "transformers.models.bert.modeling_bert")


def run(folder: str, environment: dict[str, str], argv: list[str]) -> int:
    """Run a module as `python -m` does: its exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder]
    sys.argv = argv
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code: str | int | None = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return 1 if isinstance(code, str) else code or 0


def answer(client: socket.socket) -> None:
    """Run what a client asks for in a fork and tell it the exit code; a client that is killed takes the fork with it."""
    header, streams, *_ = socket.recv_fds(client, 8, 3)
    argument = client.makefile("rb").read(int.from_bytes(header, "big"))
    child = os.fork()
    if not child:
        client.close()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os._exit(run(*json.loads(argument)))
    ended = threading.Event()

    def end_with_client() -> None:
        # A client that lives sends nothing more.
        client.recv(1)
        if not ended.is_set():
            os.kill(child, signal.SIGKILL)

    threading.Thread(target=end_with_client, daemon=True).start()
    status = os.waitpid(child, 0)[1]
    ended.set()
    with contextlib.suppress(BrokenPipeError):
        client.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def serve(address: str) -> None:
    """Import what the stages import, forget our own modules, and answer clients for ever."""
    for name in (*(f"stages.{stage}" for stage in MAIN_STAGES), *IMPORTED_WHEN_NEEDED):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in ("ballast", "stages", "tests")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            with client:
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    answer(client)
                    os._exit(0)


@contextlib.contextmanager
def prepared_python(folder: Path) -> Iterator[Path]:
    """A folder with a `python` that is quick to start, for the PATH of a project."""
    address = str(folder / "server")
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    client.chmod(0o755)
    command = [sys.executable, "-m", "tests.prepared_python", address]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        try:
            yield folder
        finally:
            server.kill()


if __name__ == "__main__":
    serve(sys.argv[1])
