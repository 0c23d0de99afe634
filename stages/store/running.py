"""Run a stage as a command: after an error under DVC, print the commands that restore the stage's last good outputs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ballast import cli

# DVC sets it to the name of the stage that it runs.
STAGE = "DVC_STAGE"


def run(main: Callable[..., None], arguments: argparse.Namespace) -> None:
    """Call `main` with the parsed arguments, as `ballast.cli.run` does, and print how to restore outputs after an error."""

    def stage(**values: object) -> None:
        try:
            main(**values)
        except Exception:
            # The error itself is what matters, whatever DVC's files hold.
            with suppress(Exception):
                if name := os.environ.get(STAGE):
                    print(*restore_hint(name), sep="\n", file=sys.stderr)
            raise

    cli.run(stage, arguments)


def restore_hint(name: str) -> list[str]:
    """Lines that say how to restore the outputs of a stage, which DVC removed before it started the stage.

    An output without content in the cache has no line.
    """
    # A slow import, needed only after an error.
    from dvc.repo import Repo

    with Repo() as repo:
        removed = [out for stage in repo.stage.collect(name) for out in stage.outs if not out.exists and in_cache(out)]
        cached = shlex.join(sorted(out.def_path for out in removed if out.use_cache))
        committed = shlex.join(sorted(out.def_path for out in removed if not out.use_cache))
    if not removed:
        return []
    return [
        f"{name}: DVC removed the earlier outputs of this stage; to restore them, undo the change and run `dvc repro`",
        *([f"{name}: or, for the last good ones, run `dvc checkout {cached}`"] if cached else []),
        *([f"{name}: or, for the committed ones, run `git restore {committed}`"] if committed else []),
    ]


def in_cache(out: Any) -> bool:
    """Whether the cache has the content that dvc.lock names for an output; the run cache also has that of uncached outputs."""
    return bool(out.hash_info) and bool(out.cache.exists(out.hash_info.value))
