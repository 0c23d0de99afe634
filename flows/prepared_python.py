"""A `python` for the stages of one run that starts without imports: each stage is a fork of a process that has made them.

A stage needs up to three seconds to import its libraries, and a run has a hundred stages. `prepared_python` makes a folder with
a script named `python`, to put first in PATH. For `-m stages.NAME`, the script sends its folder, environment and streams to a
server, which forks and runs the module from the files of the project. All other commands, and every stage while no server
answers, run in a new Python.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

# What the stages with many members import. What one stage imports once costs the same there.
LIBRARIES = (
    "torch",
    "torch.distributed",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "accelerate",
    "accelerate.utils.memory",
    "dvclive",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "pyarrow.csv",
    "pyarrow.json",
    "pydantic",
    "ruamel.yaml",
    "safetensors.numpy",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.special",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "tokenizers",
)
OURS = ("ballast", "flows", "stages", "tests")
# Stands for python; without the imports of `site` it starts in milliseconds. Ctrl-C reaches the stage too, which ends it.
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
def start():
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if len(sys.argv) < 3 or sys.argv[1] != "-m" or not sys.argv[2].startswith("stages."):
    start()
with socket.socket(socket.AF_UNIX) as server:
    try:
        server.connect({address!r})
    except OSError:
        start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.dumps([os.getcwd(), dict(os.environ), sys.argv[2:]]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.makefile().read() or {killed}))
"""
KILLED = 128 + signal.SIGKILL


def is_useful() -> bool:
    """Whether stages can be forks on this machine: a fork cannot use a GPU, and is reliable on Linux only."""
    return sys.platform == "linux" and shutil.which("nvidia-smi") is None


@contextlib.contextmanager
def prepared_python(libraries: Sequence[str] = LIBRARIES, *, wait: bool = False) -> Iterator[Path]:
    """A folder with a `python` to put first in PATH. Its server ends with the block, and if this process is killed.

    wait : whether to wait until the server answers; else the stages before that start a new Python.
    """
    with tempfile.TemporaryDirectory(prefix="ballast-") as temporary:
        folder = Path(temporary)
        address, client = folder / "server", folder / "python"
        content = CLIENT.format(python=sys.executable, address=str(address), killed=KILLED)
        client.write_text(content, encoding="utf-8")
        client.chmod(0o755)
        # By path, because a module named like one in the working directory must not come in its place.
        command = [sys.executable, "-P", __file__, str(address), *libraries]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            try:
                if wait and server.stdout is not None:
                    server.stdout.readline()
                yield folder
            finally:
                server.kill()


def serve(address: str, libraries: Sequence[str]) -> None:
    """Import the libraries that exist and answer clients for ever."""
    # Ctrl-C reaches all processes of a terminal; this one ends with the process that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Forks then share the pages of what is imported.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        # Nobody reads it where the run ended before the imports did.
        with contextlib.suppress(BrokenPipeError):
            print("ready", flush=True)
        # The parent has the other end of the standard input, which closes when it ends.
        while sys.stdin not in select.select([sys.stdin, server], [], [])[0]:
            client, _ = server.accept()
            with client:
                if not os.fork():
                    server.close()
                    answer(client)
                    os._exit(0)


def answer(client: socket.socket) -> None:
    """Run what a client asks for in a fork and send the exit code; a client that is killed takes the fork with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, *_ = socket.recv_fds(client, 8, 3)
    # A client that was killed has sent nothing.
    if len(header) < 8:
        return
    request = client.makefile("rb").read(int.from_bytes(header, "big"))
    child = os.fork()
    if not child:
        client.close()
        for target, source in enumerate(streams):
            os.dup2(source, target)
            os.close(source)
        os._exit(run(*json.loads(request)))
    for source in streams:
        os.close(source)
    ended = threading.Event()

    def end_with_client() -> None:
        # A living client sends nothing more.
        client.recv(1)
        if not ended.is_set():
            os.kill(child, signal.SIGKILL)

    threading.Thread(target=end_with_client, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended.set()
    with contextlib.suppress(OSError):
        client.sendall(str(code if code >= 0 else 128 - code).encode())


def run(folder: str, environment: dict[str, str], argv: list[str]) -> int:
    """Run a module as `python -m` does; returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = argv
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code or 0


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
