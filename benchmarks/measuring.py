"""Shared parts of the benchmarks: timing in turn, seconds and peak memory of a command, the machine, the result file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.store.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pandas", "scikit-learn", "dvc", "prefect")
# Instruction sets that decide the speed of matrix products, fastest first.
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
# The peak memory of a process starts at that of its parent, so a small process stands between.
BETWEEN = """
import json, os, subprocess, sys, time
started = time.perf_counter()
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
found = {"seconds": time.perf_counter() - started, "processor_seconds": usage.ru_utime + usage.ru_stime}
found["peak_mb"] = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"command": sys.argv[2:], **found}) + "\\n")
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


def shortest(sides: Mapping[str, Callable[[], object]], times: int) -> dict[str, dict[str, float]]:
    """Seconds of each side by the `clock` and of the `processor`: {clock: {side: seconds}, processor: ...}.

    The sides take turns, several times, and the shortest time of each counts: other processes can only make it longer.
    """
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    found = {kind: dict.fromkeys(sides, float("inf")) for kind in clocks}
    for _ in tqdm(range(times), desc="timing"):
        for name, side in sides.items():
            started = {kind: clock() for kind, clock in clocks.items()}
            side()
            for kind, clock in clocks.items():
                found[kind][name] = min(found[kind][name], clock() - started[kind])
            print(name, *(f"{kind} {each[name]:.2f} s" for kind, each in found.items()), file=sys.stderr, flush=True)
    return found


def measured(*command: str, folder: Path, output: Path | None = None, **environment: str) -> dict[str, float]:
    """Run a command in a folder; return {seconds, processor_seconds, peak_mb} of it and of the processes that it waits for.

    Our Python runs a command that begins with "-m" or "-c", and finds our modules. The peak is that of the largest process.
    The output goes to `output` or nowhere. Raises CalledProcessError if the command fails.
    """
    run = [sys.executable, *command] if command[0].startswith("-") else list(command)
    env = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"} | environment
    with tempfile.TemporaryDirectory() as temporary, (output or Path(os.devnull)).open("ab") as file:
        log = Path(temporary) / "log"
        between = [sys.executable, "-IS", "-c", BETWEEN, str(log), *run]
        done = subprocess.run(between, cwd=folder, env=env, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise subprocess.CalledProcessError(done.returncode, run, stderr=done.stderr)
        [found] = logged(log)
    del found["command"]
    return found


def logged(log: Path) -> list[dict[str, Any]]:
    """The measurements of all logged commands, in the order in which they ended: `command` and the keys of `measured`."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def recording_python(folder: Path, log: Path, path: str, python: str = sys.executable) -> str:
    """A PATH whose first `python` runs the given one and logs the measurements of each command that DVC starts."""
    folder.mkdir()
    words = shlex.join([sys.executable, "-IS", "-c", BETWEEN, str(log), python])
    (folder / "python").write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    (folder / "python").chmod(0o755)
    return f"{folder}{os.pathsep}{path}"


def surroundings() -> dict[str, Any]:
    """The machine and the time of a measurement: device, processor, cores, threads, load, versions, date."""
    import torch

    described, flags = processor()
    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else described,
        "processor": described,
        "instructions": [each for each in INSTRUCTIONS if each in flags],
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(name: str) -> str | None:
    """The version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> tuple[str, set[str]]:
    """Name and instruction sets of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return said.get("model name", platform.processor() or "cpu"), set(said.get("flags", "").split())


def result_path(name: str) -> Path:
    """The file with the results of a benchmark."""
    return ROOT / f"benchmarks/{name}.json"


def read_result(name: str) -> dict[str, Any]:
    """The last result of a benchmark; {} if it never ran, or ran on another machine or with other versions."""
    path = result_path(name)
    found = read_json(path) if path.exists() else {}
    here = surroundings()
    return found if all(found.get(key) == here[key] for key in ("device", "cpus", "threads", "versions")) else {}


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """Write the result of a benchmark so far."""
    write_json(result_path(name), result)
