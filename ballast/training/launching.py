"""Start the processes of one training, on one machine or on several nodes, with torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from ballast.exceptions import ArgumentError, TrainingError, UserError

# Environment variable of every process of a training, set by torchrun and by the launcher below.
LOCAL_RANK = "LOCAL_RANK"
# Number of nodes. torchrun reads its other options likewise: PET_NODE_RANK, PET_MASTER_ADDR, ...
NODES = "PET_NNODES"
SECONDS_TO_FAIL_FIRST = 2.0


def is_worker() -> bool:
    """Whether this process is one of several in a training."""
    return LOCAL_RANK in os.environ


def is_main_process() -> bool:
    """Whether this process writes files and prints: it is the only process of a training, or the first one."""
    return not is_worker() or int(os.environ["RANK"]) == 0


def launch_if_parallel(processes: int | str, device: str, main: Callable[..., None], *arguments: object) -> bool:
    """Call `main` in several processes, if the training needs them and this is not one of them. Returns whether it did.

    Raises UserError with the message of the process that failed first.
    """
    if is_worker() or (processes == 1 and not is_multi_node()):
        return False
    count = local_process_count(processes, device)
    if count == 1 and not is_multi_node():
        return False
    launch(count, main, *arguments)
    return True


def is_multi_node() -> bool:
    """Whether the environment variables of torchrun name other nodes."""
    return os.environ.get(NODES, "1") not in ("1", "1:1")


def local_process_count(processes: int | str, device: str) -> int:
    """Number of processes to start on this machine. `auto` means one per GPU, or one without a GPU.

    Raises ArgumentError if there are fewer GPUs than processes.
    """
    import torch

    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if processes == "auto":
        return max(1, gpus)
    if (device == "cuda" or gpus) and int(processes) > gpus:
        raise ArgumentError(f"processes must be at most the number of GPUs of this machine, {gpus}, got {processes}")
    return int(processes)


def check_gpus(gpus: float) -> None:
    """Raise UserError if torch sees fewer GPUs than this process was assigned: it would compute on the CPU."""
    if not gpus:
        return
    import torch

    if (seen := torch.cuda.device_count()) < gpus:
        raise UserError(f"requested GPUs: {gpus:g}, but torch sees {seen}; install a driver and a CUDA build of torch")


def launch(processes: int, main: Callable[..., None], *arguments: object) -> None:
    """Call `main` in `processes` processes on this machine, and wait. They join other nodes that torchrun's variables name.

    When a process fails, the others are stopped. Raises UserError with the message of the process that failed first.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # The launcher logs the same error in a dozen lines.
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # The variable limits the cores of the whole training; Ray sets it.
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads // processes))
    options = run.parse_args(  # type: ignore[no-untyped-call]
        ["--nproc-per-node", str(processes), main.__name__]
    )
    if not is_multi_node():
        options.rdzv_backend, options.rdzv_endpoint, options.rdzv_id = "c10d", "localhost:0", str(uuid.uuid4())
        options.local_addr = "localhost"
    config, _, _ = run.config_from_args(options)
    config.start_method = "spawn"
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        elastic_launch(config, _run_worker)(os.getpid(), main, *arguments)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        raise _as_error(rank, failure) from None
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _run_worker(launcher: int, main: Callable[..., None], *arguments: object) -> None:
    """Run one process of a training. It ends with its launcher, even if that is killed."""
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(1)
    from torch import distributed

    try:
        main(*arguments)
    except RuntimeError:
        # Perhaps the connection closed because another process failed. Let that one report its error first.
        time.sleep(SECONDS_TO_FAIL_FIRST)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _as_error(rank: int, failure: Any) -> Exception:
    """The failure of a process of a training, as an error of the launcher."""
    if failure.exitcode < 0:
        reason = ", probably because memory ran out" if -failure.exitcode == signal.SIGKILL else ""
        return UserError(
            f"process {rank} of the training was killed by {failure.signal_name()}{reason}; the others were stopped"
        )
    if not isinstance(failure.message, dict):
        return RuntimeError(f"process {rank} of the training ended with exit code {failure.exitcode}")
    message = str(failure.message["message"])
    kind, _, text = message.partition(": ")
    kinds = {error.__name__: error for error in (UserError, ArgumentError, TrainingError)}
    if kind in kinds:
        return kinds[kind](text)
    error = RuntimeError(f"process {rank} of the training: {message}")
    error.add_note(str(failure.message["extraInfo"]["py_callstack"]))
    return error
