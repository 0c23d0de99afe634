"""Run a DVC command and report its outcome as JSON: `python dvc_command.py RESULT ARGUMENT...`.

DVC's exit code only says that a command failed, and its messages are for people. The report holds what flows decide on:

ran : stages that ran, without those restored from the run cache.
failed_stage : stage with the failed command, or null.
exit_code : that of the stage's command; 75 if another process uses the same files; else DVC's own.
missing : outputs that DVC could not restore, as paths relative to the working directory.

This module imports nothing of this project, so it runs in any clone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import dvc.stage.run as stage_run
from dvc.cli import main as dvc_main
from dvc.exceptions import CheckoutError
from dvc.lock import LockError
from dvc.stage.exceptions import StageCmdFailedError


class StageCommandFailed(StageCmdFailedError):  # type: ignore[misc]  # noqa: N818
    """DVC's error with the exit code, which DVC only writes into the message."""

    def __init__(self, cmd: str, status: int | None = None) -> None:
        super().__init__(cmd, status)
        self.status = status


class Outcome(logging.Handler):
    """What happens in a DVC command, from the stages that run and from the exceptions that DVC logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.ran: list[str] = []
        self.failed_stage: str | None = None
        self.stage_exit_code: int | None = None
        self.busy = False
        self.missing: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            self.busy |= isinstance(error, LockError)
            if isinstance(error, CheckoutError):
                self.missing += map(str, error.target_infos)
            error = error.__cause__ or error.__context__

    def report(self, dvc_exit_code: int) -> dict[str, Any]:
        """The content of the result file."""
        exit_code = dvc_exit_code if self.stage_exit_code is None else self.stage_exit_code
        if exit_code and self.stage_exit_code is None and self.busy:
            exit_code = os.EX_TEMPFAIL
        return {
            "ran": self.ran,
            "failed_stage": self.failed_stage,
            "exit_code": exit_code,
            "missing": sorted(set(self.missing)),
        }


def observe() -> Outcome:
    """Record the outcome of the DVC commands of this process."""
    outcome, run_stage_command = Outcome(), stage_run.cmd_run

    def observed(stage: Any, *arguments: Any, **options: Any) -> None:
        outcome.ran.append(stage.addressing)
        try:
            run_stage_command(stage, *arguments, **options)
        except StageCommandFailed as error:
            outcome.failed_stage, outcome.stage_exit_code = stage.addressing, error.status
            raise

    stage_run.cmd_run, stage_run.StageCmdFailedError = observed, StageCommandFailed
    logging.getLogger("dvc").addHandler(outcome)
    return outcome


def main(result: Path, arguments: list[str]) -> int:
    """Run DVC, write the report, and return the exit code; that of a process that a signal ended is 128 and its number."""
    outcome = observe()
    report = outcome.report(int(dvc_main(arguments) or 0))
    temporary = result.with_name(f"{result.name}.partial")
    temporary.write_text(json.dumps(report), encoding="utf-8")
    temporary.replace(result)
    return int(report["exit_code"]) if report["exit_code"] >= 0 else 128 - int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
