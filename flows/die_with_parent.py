"""Run a command that ends with its parent, even if the parent is killed: `python die_with_parent.py DESCRIPTOR COMMAND...`.

The descriptor is the read end of a pipe. Only the parent has the write end, so the pipe closes when the parent ends. A signal
to the parent's process group would not reach the command, which has its own group. This file imports nothing of this project,
because it is started for every command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def end_with_parent(descriptor: int) -> None:
    """Wait for the end of the parent, then kill this process group: the command and its children."""
    os.read(descriptor, 1)
    os.killpg(0, signal.SIGKILL)


def main(descriptor: int, command: list[str]) -> int:
    """Run the command and return its exit code; a signal that ends the command ends this process too."""
    # The whole group receives these signals, and this process waits for the command. Children do not inherit handlers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"error: {command[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=end_with_parent, args=[descriptor], daemon=True).start()
    code = child.wait()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
