"""Run `dvc repro` after recovery from killed runs, with stages that start quickly, and back up dvc.lock meanwhile.

`make repro` runs this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ballast.cli import parser, run
from flows.prepared_python import is_useful, prepared_python
from flows.recovery.cleanup import recover
from flows.recovery.dvc_processes import DVC
from flows.recovery.lock_backup import PAUSE_SECONDS, back_up_written
from flows.settings import check_before_dvc

POLL_SECONDS = 0.25
# The command that validates params.yaml.
CHECK = Path("stages/store/params.py")


def terminate(pid: int) -> None:
    """Terminate a process and its descendants: `dvc` alone would leave its stage running."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (*process.children(recursive=True), process):
            with suppress(psutil.Error):
                member.terminate()


def check_params() -> None:
    """Exit if params.yaml is invalid, which a stage would find only after DVC has removed its outputs."""
    if CHECK.exists():
        command = [sys.executable, "-m", ".".join(CHECK.with_suffix("").parts)]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)


def main(targets: list[str]) -> None:
    check_before_dvc()
    check_params()
    recover(lambda line: print(f"repro: {line}", file=sys.stderr, flush=True))
    # A terminal also interrupts DVC; wait for its end.
    signal.signal(signal.SIGINT, lambda *_: None)
    with ExitStack() as stack:
        path = [str(stack.enter_context(prepared_python()))] if is_useful() else []
        environment = os.environ | {"PATH": os.pathsep.join([*path, os.environ.get("PATH", os.defpath)])}
        dvc = stack.enter_context(subprocess.Popen([*DVC, "repro", *targets], env=environment))
        signal.signal(signal.SIGTERM, lambda *_: terminate(dvc.pid))
        while dvc.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                dvc.wait(POLL_SECONDS)
            back_up_written(Path())
    # A killed dvc may have been writing.
    back_up_written(Path(), pause=0.0 if dvc.returncode >= 0 else PAUSE_SECONDS)
    if dvc.returncode:
        sys.exit(dvc.returncode if dvc.returncode > 0 else 128 - dvc.returncode)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("targets", nargs="*", help="stages, or the dvc.yaml of a study (default: all stages)")
    run(main, arguments.parse_args())
