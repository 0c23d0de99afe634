"""Run a DVC command, with a faster way to write dvc.lock: `python dvc_command.py [--report FILE] ARGUMENT...`.

DVC parses and writes all of dvc.lock after each stage, which takes seconds where a run has a hundred stages. Here it writes the
lines of that stage only; the bytes are the same.

DVC's exit code only says that a command failed, and its messages are for people. The report (JSON) holds what flows decide on:

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
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import dvc.stage.run as stage_run
from dvc.cli import main as dvc_main
from dvc.dvcfile import Lockfile
from dvc.exceptions import CheckoutError
from dvc.lock import LockError
from dvc.stage.exceptions import StageCmdFailedError
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dumps_yaml

# The first lines of a dvc.lock; each stage follows with an indent of two spaces.
HEAD = "schema: '2.0'\nstages:\n"
FIRST_LINE_OF_STAGE = re.compile(r"^  (?! )", re.MULTILINE)

logger = logging.getLogger("dvc.dvcfile")


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


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def with_stage(lock: str, entry: str) -> str:
    r"""The text of a dvc.lock with the entry of one stage replaced or added.

    entry : a dvc.lock with that stage alone.

    >>> first, second = HEAD + "  a:\n    cmd: x\n", HEAD + "  b:\n    cmd: y\n"
    >>> both = with_stage(first, second)
    >>> both == HEAD + "  a:\n    cmd: x\n  b:\n    cmd: y\n"
    True
    >>> with_stage(both, HEAD + "  a:\n    cmd: z\n") == HEAD + "  a:\n    cmd: z\n  b:\n    cmd: y\n"
    True
    """
    new = entry.removeprefix(HEAD)
    name = new.partition("\n")[0] + "\n"
    starts = [start.start() for start in FIRST_LINE_OF_STAGE.finditer(lock)] + [len(lock)]
    for start, end in pairwise(starts):
        if lock.startswith(name, start):
            return lock[:start] + new + lock[end:]
    return lock + new


def write_stages_only() -> None:
    """Let the DVC commands of this process write only the lines of a stage into dvc.lock, to a temporary file first."""
    write_all = Lockfile.dump_stages

    def dump_stages(self: Any, stages: list[Any], **options: Any) -> None:
        path = Path(self.path)
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        # DVC itself writes a new file, and one with more than stages.
        if not re.fullmatch(rf"{re.escape(HEAD)}(  .*\n|\n)+", before):
            write_all(self, stages, **options)
            return
        after = before
        for stage in stages:
            after = with_stage(after, dumps_yaml({"schema": "2.0", "stages": to_lockfile(stage, **options)}))
        if after != before:
            logger.info("Updating lock file '%s'", self.relpath)
            replace_text(path, after)
            self.repo.scm_context.track_file(self.relpath)

    Lockfile.dump_stages = dump_stages


def main(report: Path | None, arguments: list[str]) -> int:
    """Run DVC, write the report, and return the exit code; that of a process that a signal ended is 128 and its number."""
    write_stages_only()
    if report is None:
        return int(dvc_main(arguments) or 0)
    outcome = observe()
    content = outcome.report(int(dvc_main(arguments) or 0))
    replace_text(report, json.dumps(content))
    return int(content["exit_code"]) if content["exit_code"] >= 0 else 128 - int(content["exit_code"])


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(Path(given[1]), given[2:]) if given[:1] == ["--report"] else main(None, given))
