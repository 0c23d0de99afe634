"""Run a command that ends with whoever started it, also when that is killed: `python die_with_parent.py DESCRIPTOR COMMAND...`.

The descriptor is the reading end of a pipe whose other end only the starter has, so that it closes when the starter is gone. A
signal to the starter's group would not reach the command, which has a group of its own. Imports nothing of ours: it is started
for every command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def end_with_starter(descriptor: int) -> None:
    """Wait until the starter is gone, then kill this process's group: the command with its own children."""
    os.read(descriptor, 1)
    os.killpg(0, signal.SIGKILL)


def main(descriptor: int, command: list[str]) -> int:
    """The command's exit code; a signal that ends the command ends this process too."""
    # The whole group is told to end; this process waits for the command. Handlers, unlike what is ignored, are not inherited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"error: {command[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=end_with_starter, args=[descriptor], daemon=True).start()
    code = child.wait()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
