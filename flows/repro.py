"""Run `dvc repro` as `make repro` does: what a killed run left is mended first, and dvc.lock is kept while it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ballast.cli import parser, run
from flows.recovery.cleanup import recover
from flows.recovery.lock_backup import PAUSE_SECONDS, back_up_written
from flows.settings import check_before_dvc

ASK_SECONDS = 0.25


def terminate(pid: int) -> None:
    """Ask a process and all that it started to end: a dvc that ends alone leaves its stage running."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), process):
            with suppress(psutil.Error):
                each.terminate()


def main(targets: list[str]) -> None:
    check_before_dvc()
    recover(lambda line: print(f"repro: {line}", file=sys.stderr, flush=True))
    # A terminal interrupts DVC as well, whose end is waited for.
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(["dvc", "repro", *targets]) as dvc:
        signal.signal(signal.SIGTERM, lambda *_: terminate(dvc.pid))
        while dvc.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                dvc.wait(ASK_SECONDS)
            back_up_written(Path())
    # A dvc that was killed may have been writing.
    back_up_written(Path(), pause=0.0 if dvc.returncode >= 0 else PAUSE_SECONDS)
    if dvc.returncode:
        sys.exit(dvc.returncode if dvc.returncode > 0 else 128 - dvc.returncode)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("targets", nargs="*", help="stages, or the dvc.yaml of a study; none is everything")
    run(main, arguments.parse_args())
