"""Starting the processes of one training, of one machine or of several nodes, by torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from ballast.exceptions import UserError

# Set by torchrun, and by the launcher here, in every process of a training.
LOCAL_RANK = "LOCAL_RANK"
# How many nodes; torchrun reads PET_NODE_RANK, PET_MASTER_ADDR and its other options in the same way.
NODES = "PET_NNODES"
SECONDS_TO_FAIL_FIRST = 2.0


def is_rank() -> bool:
    """Whether this process was started as one of a training's."""
    return LOCAL_RANK in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes and tells: the only one, or the first of a training's."""
    return not is_rank() or int(os.environ["RANK"]) == 0


def launched(processes: int | str, device: str, main: Callable[..., None], *arguments: object) -> bool:
    """Call a function in the processes of a training, if it is to have several and this is none of them; whether it was.

    Raises UserError with the line of the process that failed first.
    """
    if is_rank() or (processes == 1 and not other_nodes()):
        return False
    count = processes_here(processes, device)
    if count == 1 and not other_nodes():
        return False
    launch(count, main, *arguments)
    return True


def other_nodes() -> bool:
    """Whether torchrun's variables say that other nodes take part."""
    return os.environ.get(NODES, "1") not in ("1", "1:1")


def processes_here(processes: int | str, device: str) -> int:
    """How many processes of a training to start on this machine; `auto` is one for each GPU, and one without any.

    Raises UserError where there are fewer GPUs.
    """
    import torch

    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if processes == "auto":
        return max(1, gpus)
    if (device == "cuda" or gpus) and int(processes) > gpus:
        raise UserError(f"train.processes is {processes}, but GPUs here: {gpus}; each process needs its own")
    return int(processes)


def check_gpus(gpus: float) -> None:
    """Raise UserError where torch sees fewer GPUs than this process was given: it would compute on the CPU."""
    if not gpus:
        return
    import torch

    if (seen := torch.cuda.device_count()) < gpus:
        raise UserError(f"{gpus:g} GPU asked for, torch sees {seen}; is it the CPU build, or no driver?")


def launch(processes: int, main: Callable[..., None], *arguments: object) -> None:
    """Call a function in as many processes here, and wait; they join other nodes where torchrun's variables name some.

    When a process fails, the others end with it. Raises UserError with the line of the one that failed first.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # It says the same in a dozen lines.
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # What is set is what the training may take, as Ray sets it.
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads // processes))
    options = run.parse_args(  # type: ignore[no-untyped-call]
        ["--nproc-per-node", str(processes), main.__name__]
    )
    if not other_nodes():
        options.rdzv_backend, options.rdzv_endpoint, options.rdzv_id = "c10d", "localhost:0", str(uuid.uuid4())
        options.local_addr = "localhost"
    config, _, _ = run.config_from_args(options)
    config.start_method = "spawn"
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    try:
        elastic_launch(config, _as_rank)(os.getpid(), main, *arguments)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        raise _told(rank, failure) from None
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _as_rank(launcher: int, main: Callable[..., None], *arguments: object) -> None:
    """Be one process of a training: it ends with its launcher, even when that is killed."""
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(1)
    from torch import distributed

    try:
        main(*arguments)
    except RuntimeError:
        # It may be of a connection that closed because another process failed, whose own error is to be heard first.
        time.sleep(SECONDS_TO_FAIL_FIRST)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _told(rank: int, failure: Any) -> Exception:
    """What a process of a training failed with, as an error of the launcher."""
    if failure.exitcode < 0:
        reason = ", most often for want of memory" if -failure.exitcode == signal.SIGKILL else ""
        return UserError(
            f"process {rank} of the training was killed by {failure.signal_name()}{reason}; the others were stopped"
        )
    if not isinstance(failure.message, dict):
        return RuntimeError(f"process {rank} of the training ended with exit code {failure.exitcode}")
    said = str(failure.message["message"])
    if said.startswith(f"{UserError.__name__}: "):
        return UserError(said.partition(": ")[2])
    error = RuntimeError(f"process {rank} of the training: {said}")
    error.add_note(str(failure.message["extraInfo"]["py_callstack"]))
    return error
